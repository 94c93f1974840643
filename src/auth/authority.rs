//! What the bearer of a token may do.

use jiff::Timestamp;

use super::{Carrier, Claims};
use crate::event::{AccountName, Topic, TopicMatcher};

/// What one request may do. Made once at the edge, asked everywhere behind it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Authority {
    claims: Claims,
    carrier: Option<Carrier>,
}

impl Authority {
    /// The bearer of a token that was verified.
    pub fn of(claims: Claims, carrier: Carrier) -> Self {
        Self { claims, carrier: Some(carrier) }
    }

    /// Somebody without a token: may do nothing that needs one.
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// Whether there was no token at all, so that asking for one is the right answer.
    pub fn is_anonymous(&self) -> bool {
        self.carrier.is_none()
    }

    /// Whether a private event with these topics may be seen: one of them suffices, as Mercure has it.
    pub fn may_see(&self, topics: &[Topic]) -> bool {
        topics.iter().any(|topic| any_matches(&self.claims.mercure.subscribe, topic))
    }

    /// Whether an event with these topics may be published: all of them must be covered, as Mercure has it, lest a
    /// publisher reach a topic by adding one of its own.
    pub fn may_publish(&self, topics: &[Topic]) -> bool {
        !topics.is_empty() && topics.iter().all(|topic| any_matches(&self.claims.mercure.publish, topic))
    }

    /// Whether accounts, subscriptions and tokens of everybody may be changed.
    pub fn may_administrate(&self) -> bool {
        self.claims.postrider.admin
    }

    /// Whether the state of this account may be read.
    pub fn may_read_account(&self, name: &AccountName) -> bool {
        self.may_administrate() || self.claims.postrider.accounts.iter().any(|own| own == "*" || own == name.as_str())
    }

    /// The matchers of the topics that may be seen, for the hub to compile into its index.
    pub fn subscribe_matchers(&self) -> &[TopicMatcher] {
        &self.claims.mercure.subscribe
    }

    /// Whether a write needs [`super::check_origin`]: a browser adds the cookie to any site's requests.
    pub fn needs_origin_check(&self) -> bool {
        self.carrier == Some(Carrier::Cookie)
    }

    /// When it ends; a stream that it opened ends then too.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.claims.expires_at()
    }

    /// What the token said.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }
}

fn any_matches(matchers: &[TopicMatcher], topic: &Topic) -> bool {
    matchers.iter().any(|matcher| matcher.matches(topic))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{MercureClaims, PostriderClaims};

    fn topics(texts: &[&str]) -> Vec<Topic> {
        texts.iter().map(|text| Topic::parse(text).unwrap()).collect()
    }

    fn authority(matchers: &[&str], accounts: &[&str], admin: bool) -> Authority {
        let matchers: Vec<_> = matchers.iter().map(|text| TopicMatcher::parse(text).unwrap()).collect();
        let mercure = MercureClaims { subscribe: matchers.clone(), publish: matchers, payload: None };
        let postrider = PostriderClaims { accounts: accounts.iter().map(|&name| name.to_owned()).collect(), admin };
        Authority::of(Claims { mercure, postrider, ..Claims::default() }, Carrier::Header)
    }

    #[test]
    fn seeing_needs_one_topic_and_publishing_needs_all() {
        let alice = authority(&["mail/alice/{mailbox}"], &[], false);
        let mixed = topics(&["mail/alice/INBOX", "mail/bob/INBOX"]);
        assert!(alice.may_see(&mixed) && !alice.may_publish(&mixed));
        assert!(alice.may_publish(&topics(&["mail/alice/INBOX"])));
        assert!(!alice.may_see(&topics(&["mail/bob/INBOX"])));
        assert!(!alice.may_publish(&[]) && !alice.may_see(&[]));
        assert!(authority(&["*"], &[], false).may_publish(&mixed));
    }

    #[test]
    fn accounts_are_read_by_name_star_or_administrators() {
        let (alice, bob) = (AccountName::parse("alice").unwrap(), AccountName::parse("bob").unwrap());
        let own = authority(&[], &["alice"], false);
        assert!(own.may_read_account(&alice) && !own.may_read_account(&bob) && !own.may_administrate());
        assert!(authority(&[], &["*"], false).may_read_account(&bob));
        assert!(authority(&[], &[], true).may_read_account(&bob));
    }

    #[test]
    fn without_a_token_nothing_is_allowed() {
        let nobody = Authority::anonymous();
        let any = topics(&["a"]);
        assert!(nobody.is_anonymous() && !nobody.needs_origin_check());
        assert!(!nobody.may_see(&any) && !nobody.may_publish(&any) && !nobody.may_administrate());
    }
}
