//! The way of one request whose client has a certificate of an account, from the certificate to a [`Principal`].
//!
//! The one rule: the account is checked like that of a password. The TLS handshake has proved the identity, so neither
//! the throttle nor the hashers are asked.

use std::sync::Arc;

use super::{Authenticator, AuthnError, Principal, RejectReason};
use fedgate_base::moment::BootMoment;
use fedgate_core::policy::PolicySet;

impl Authenticator {
    /// Authenticates a client by its certificate, which stands for `account`; the TLS handshake proved that the client
    /// holds its key. A cached principal is used however it was proved, because this client has just proved its own
    /// identity.
    ///
    /// # Errors
    /// See [`AuthnError`].
    pub async fn authenticate_certificate(
        &self,
        account: &str,
        policy: &Arc<PolicySet>,
    ) -> Result<Arc<Principal>, AuthnError> {
        let cached = self.principals.find(account, BootMoment::now());
        self.principals.count(cached.is_some());
        if let Some(principal) = cached {
            return Ok(self.under(principal, policy));
        }
        // Unconfirmed accounts may come from a standby, so no caller is admitted by them: 503.
        self.are_confirmed().await?;
        // Taken before the read: if everything is dropped meanwhile, the principal is not inserted.
        let generation = self.principals.generation();
        let reject = |reason| Err(AuthnError::Rejected { account: account.to_owned(), reason });
        match self.read_account(account).await? {
            None => reject(RejectReason::UnknownAccount),
            Some(account) if !account.active => reject(RejectReason::Inactive),
            Some(account) => {
                let principal = Arc::new(self.principal(account, None, policy, generation));
                self.principals.insert(&principal);
                Ok(principal)
            }
        }
    }
}
