//! What is counted of the senders of mail.

use crate::event::{Authentication, AuthenticationResult};
use crate::metrics::{Metrics, Results};

/// Counters since the start.
#[derive(Debug, Clone, Default)]
pub(super) struct AuthenticationMetrics {
    spf: Results,
    dkim: Results,
    dmarc: Results,
    arc: Results,
    /// What accounts made of it.
    pub verdicts: Results,
}

impl AuthenticationMetrics {
    /// Counters that `metrics` tells.
    pub(super) fn registered(metrics: &Metrics) -> Self {
        let counted = Self::default();
        metrics.register_results("mail_spf", "Messages by what SPF says of their sender", &counted.spf);
        metrics.register_results("mail_dkim", "DKIM signatures of messages by what they are worth", &counted.dkim);
        metrics.register_results("mail_dmarc", "Messages by what DMARC says of their sender", &counted.dmarc);
        metrics.register_results("mail_arc", "Messages by what their ARC chain is worth", &counted.arc);
        let help = "Messages, by recipient, that were marked or not taken because of who sent them";
        metrics.register_results("mail_verdicts", help, &counted.verdicts);
        counted
    }

    /// Counts what was found of one message.
    pub(super) fn count(&self, found: &Authentication) {
        let each = [(&self.spf, found.spf), (&self.dmarc, found.dmarc), (&self.arc, found.arc)];
        let signatures = found.dkim.iter().map(|signature| (&self.dkim, Some(signature.result)));
        for (results, result) in each.into_iter().chain(signatures) {
            if let Some(result) = result.map(AuthenticationResult::as_str) {
                results.count(result);
            }
        }
    }
}
