//! What an account wants to be done with a message, given what is known of its sender. Pure.

use crate::event::{Authentication, AuthenticationResult, DmarcPolicy};
use crate::registry::{DmarcFail, Requirement};

/// What an account asks of a message's sender.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SenderPolicy {
    pub dmarc_fail: DmarcFail,
    pub require: Option<Requirement>,
}

/// What is done with a message for one recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is taken.
    Accept,
    /// It is taken, and suspicious.
    Mark,
    /// It is not taken.
    Refuse(Refusal),
}

/// Why a message is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Its domain says that it did not send it, and that it is to be rejected.
    DmarcFail,
    /// It does not prove what the account wants it to.
    NotProven,
    /// What the account wants it to prove could not be looked up.
    NotChecked,
}

impl Refusal {
    /// The reply without its CRLF. RFC 7372 §3.3 has the code for more than one failed check, which DMARC's are.
    pub(crate) fn reply(self) -> &'static str {
        match self {
            Self::DmarcFail => "550 5.7.26 The domain in From did not send this and wants it rejected (DMARC)",
            Self::NotProven => "550 5.7.26 The recipient takes only mail that passes DMARC",
            Self::NotChecked => "451 4.7.26 DMARC could not be checked, try again later",
        }
    }

    /// The reply without its codes.
    pub(crate) fn text(self) -> &'static str {
        self.reply().splitn(3, ' ').nth(2).unwrap_or_default()
    }

    /// Whether the same message may be taken later.
    pub(crate) fn is_temporary(self) -> bool {
        self == Self::NotChecked
    }
}

impl SenderPolicy {
    /// What is done with a message of which `found` is known.
    pub(crate) fn verdict(self, found: Option<&Authentication>, has_logged_in: bool) -> Verdict {
        if has_logged_in {
            return Verdict::Accept;
        }
        let dmarc = found.and_then(|found| found.dmarc);
        match (self.require, dmarc) {
            (None, _) | (Some(Requirement::DmarcPass), Some(AuthenticationResult::Pass)) => {}
            (_, Some(AuthenticationResult::Temperror)) => return Verdict::Refuse(Refusal::NotChecked),
            _ => return Verdict::Refuse(Refusal::NotProven),
        }
        let wants_rejected = found.and_then(|found| found.dmarc_policy) == Some(DmarcPolicy::Reject);
        match (dmarc, self.dmarc_fail) {
            (Some(AuthenticationResult::Fail), DmarcFail::Refuse) if wants_rejected => {
                Verdict::Refuse(Refusal::DmarcFail)
            }
            // Whoever sends it can see to it that nothing is found out.
            (
                Some(AuthenticationResult::Fail | AuthenticationResult::Permerror | AuthenticationResult::Temperror),
                DmarcFail::Mark | DmarcFail::Refuse,
            ) => Verdict::Mark,
            _ => Verdict::Accept,
        }
    }
}

/// The refusal of a message that has one answer for all its recipients. What must be proven is refused for all, since
/// nobody else's wish makes it true. What only fails is refused where nobody takes it; else those who would refuse it get
/// it marked, so that the others do not lose it.
pub(crate) fn refused_for_all(verdicts: &[Verdict]) -> Option<Refusal> {
    let refusals = || {
        verdicts.iter().map(|verdict| match verdict {
            Verdict::Refuse(refusal) => Some(*refusal),
            Verdict::Accept | Verdict::Mark => None,
        })
    };
    let unproven = refusals().flatten().find(|refusal| *refusal != Refusal::DmarcFail);
    unproven.or_else(|| refusals().collect::<Option<Vec<_>>>()?.first().copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use AuthenticationResult::{Fail, None as NoRecord, Pass, Permerror, Temperror};
    use Refusal::{NotChecked, NotProven};

    fn found(dmarc: AuthenticationResult, policy: DmarcPolicy) -> Authentication {
        Authentication { dmarc: Some(dmarc), dmarc_policy: Some(policy), ..Authentication::default() }
    }

    #[test]
    fn only_what_its_domain_wants_rejected_is_refused() {
        let policy = |dmarc_fail| SenderPolicy { dmarc_fail, require: None };
        let of = |dmarc_fail, dmarc, wish| policy(dmarc_fail).verdict(Some(&found(dmarc, wish)), false);
        for wish in [DmarcPolicy::None, DmarcPolicy::Quarantine, DmarcPolicy::Reject] {
            assert_eq!(of(DmarcFail::Accept, Fail, wish), Verdict::Accept);
            assert_eq!(of(DmarcFail::Mark, Fail, wish), Verdict::Mark);
            for not_failed in [Pass, NoRecord] {
                assert_eq!(of(DmarcFail::Refuse, not_failed, wish), Verdict::Accept, "{not_failed} is not fail");
            }
            for not_found_out in [Temperror, Permerror] {
                assert_eq!(of(DmarcFail::Refuse, not_found_out, wish), Verdict::Mark, "{not_found_out}");
                assert_eq!(of(DmarcFail::Accept, not_found_out, wish), Verdict::Accept, "{not_found_out}");
            }
        }
        assert_eq!(of(DmarcFail::Refuse, Fail, DmarcPolicy::Reject), Verdict::Refuse(Refusal::DmarcFail));
        assert_eq!(of(DmarcFail::Refuse, Fail, DmarcPolicy::Quarantine), Verdict::Mark);
        let unknown = Authentication { dmarc: Some(Fail), ..Authentication::default() };
        assert_eq!(policy(DmarcFail::Refuse).verdict(Some(&unknown), false), Verdict::Mark);
        assert_eq!(policy(DmarcFail::Refuse).verdict(None, false), Verdict::Accept);
        let forged = found(Fail, DmarcPolicy::Reject);
        assert_eq!(policy(DmarcFail::Refuse).verdict(Some(&forged), true), Verdict::Accept, "who logged in is known");
    }

    #[test]
    fn what_is_required_must_be_proven() {
        let policy = SenderPolicy { require: Some(Requirement::DmarcPass), dmarc_fail: DmarcFail::Accept };
        let of = |dmarc| policy.verdict(Some(&found(dmarc, DmarcPolicy::None)), false);
        assert_eq!(of(Pass), Verdict::Accept);
        assert_eq!(of(Temperror), Verdict::Refuse(NotChecked));
        for unproven in [Fail, NoRecord, Permerror] {
            assert_eq!(of(unproven), Verdict::Refuse(NotProven));
        }
        assert_eq!(policy.verdict(None, false), Verdict::Refuse(NotProven), "nobody has looked");
        assert_eq!(policy.verdict(None, true), Verdict::Accept);
    }

    #[test]
    fn one_answer_for_all_takes_nothing_unproven_and_refuses_nothing_that_somebody_takes() {
        let fails = Verdict::Refuse(Refusal::DmarcFail);
        assert_eq!(refused_for_all(&[fails, Verdict::Accept]), None);
        assert_eq!(refused_for_all(&[Verdict::Mark, fails]), None);
        assert_eq!(refused_for_all(&[fails, fails]), Some(Refusal::DmarcFail));
        assert_eq!(refused_for_all(&[Verdict::Accept, Verdict::Refuse(NotProven)]), Some(NotProven));
        assert_eq!(refused_for_all(&[Verdict::Refuse(NotChecked), Verdict::Accept]), Some(NotChecked));
        assert_eq!(refused_for_all(&[Verdict::Mark, Verdict::Accept]), None);
        assert_eq!(refused_for_all(&[]), None);
    }

    #[test]
    fn replies_have_their_class_twice() {
        for refusal in [Refusal::DmarcFail, NotProven, NotChecked] {
            let reply = refusal.reply();
            assert_eq!(reply.as_bytes()[0], reply.as_bytes()[4], "{reply}");
            assert_eq!(reply.starts_with('4'), refusal == NotChecked, "{reply}");
        }
    }
}
