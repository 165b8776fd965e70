//! Decisions about an account for a service that asks, without a request of the account's own.
//!
//! The one rule: the rights of an account are found and decided as for its requests. A question that no role could
//! grant is denied.

use std::sync::Arc;

use super::Pipeline;
use crate::authn::{AuthnError, Principal, RejectReason};
use fedgate_core::assertion::RecordScope;
use fedgate_core::authzen::action_method;
use fedgate_core::policy::{DenyReason, Method, PolicyDecision, PolicyReach, PolicySet};
use fedgate_core::reasons::RecordReason;

/// An account that a service asks about.
pub enum AskedAccount {
    /// It may sign in, with these rights.
    Active(Arc<Principal>),
    /// It may not, for this reason.
    Rejected(RejectReason),
}

impl Pipeline {
    /// The account of a question, as of now.
    ///
    /// # Errors
    /// The accounts cannot be read or confirmed.
    pub async fn asked_account(&self, id: &str, policy: &Arc<PolicySet>) -> Result<AskedAccount, AuthnError> {
        match self.authenticator.authenticate_certificate(id, policy).await {
            Ok(principal) => Ok(AskedAccount::Active(principal)),
            Err(AuthnError::Rejected { reason, .. }) => Ok(AskedAccount::Rejected(reason)),
            Err(error) => Err(error),
        }
    }

    /// Whether an account may do something with a record of an endpoint.
    ///
    /// # Errors
    /// Why it may not.
    pub fn judge(
        &self,
        account: &AskedAccount,
        action: &str,
        endpoint: &str,
        subject: &str,
    ) -> Result<RecordScope, RecordReason> {
        let principal = match account {
            AskedAccount::Active(principal) => principal,
            AskedAccount::Rejected(reason) => return Err((*reason).into()),
        };
        // What no route has, and no method of roles.cfg, no role can grant.
        let known = action_method(action).zip(self.routes.endpoints().find(endpoint));
        let (method, endpoint) = known.ok_or(RecordReason::Denied(DenyReason::NotGranted))?;
        let own = self.routes.own(endpoint, principal.own());
        match principal.rights().decide(own, method, endpoint, Some(subject)) {
            PolicyDecision::Allow(PolicyReach::Own | PolicyReach::Related) => Ok(RecordScope::Own),
            PolicyDecision::Allow(PolicyReach::Global) => Ok(RecordScope::Global),
            PolicyDecision::Deny(reason) => Err(RecordReason::Denied(reason)),
        }
    }

    /// What an account may do with a record of an endpoint: the keys of roles.cfg.
    pub fn permitted_actions(&self, account: &AskedAccount, endpoint: &str, subject: &str) -> Vec<&'static str> {
        let all = Method::ALL.into_iter().map(Method::as_str);
        all.filter(|action| self.judge(account, action, endpoint, subject).is_ok()).collect()
    }

    /// The ids among those of an account's own person with which it may do something, in order.
    pub fn permitted_own(&self, account: &AskedAccount, action: &str, endpoint: &str) -> Vec<String> {
        let AskedAccount::Active(principal) = account else { return Vec::new() };
        let own = principal.own();
        let all = std::iter::once(own.account()).chain(own.others().iter().map(String::as_str));
        let mut ids: Vec<String> =
            all.filter(|id| self.judge(account, action, endpoint, id).is_ok()).map(str::to_owned).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }
}
