//! Stored hashes of an older kind, replaced after a login with the right password.
//!
//! The one rule: no request waits for it, and a hash that was changed meanwhile is left alone.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::client::ClientSource;
use super::hasher::JobOwner;
use super::proof::{PasswordProof, keyed_mac, short};
use super::{Authenticator, OwnedCredential};

impl Authenticator {
    /// Replaces a verified hash by a new one, without delaying the request: only if this store wants that, and only if
    /// the hash was not changed meanwhile.
    pub(super) fn upgrade(&self, credential: &OwnedCredential, source: Option<ClientSource>, old: String) {
        let (accounts, hasher, proofs) = (self.accounts.clone(), self.hasher.clone(), Arc::clone(&self.proofs));
        let (account, password) = (credential.account.clone(), credential.password.clone());
        let (key, lasts, throttle) =
            (Zeroizing::new(*self.key()), self.settings.verified_for, Arc::clone(&self.throttle));
        let owner = JobOwner { account: account.as_str().into(), source: source.map(ClientSource::in_common) };
        let (rule, replaced) = (self.hash_rule.clone(), self.replaced_hashes.clone());
        tokio::spawn(async move {
            if !rule.upgrades().await {
                return;
            }
            let Ok(Some(new)) = hasher.hash(password.clone(), owner).await else { return };
            // The proof is stored before the hash, so that no request from this address has to hash the password
            // again.
            let mac = keyed_mac(&key, &account, &new, &password);
            proofs.insert((mac, source), Arc::new(PasswordProof::new(mac, source, true, lasts)));
            let mark = |stored| short(keyed_mac(&key, &account, stored, b""));
            // Before the hash, too: a stream of this account goes on with the same password.
            replaced.insert(mark(&old), mark(&new));
            match accounts.replace_hash(&account, &old, &new).await {
                Ok(true) => {
                    throttle.rehashed(&account, mark(&old), mark(&new));
                    tracing::info!(account, "password hash replaced by argon2id");
                }
                Ok(false) => tracing::debug!(account, "password hash changed meanwhile, left as it is"),
                Err(error) if error.is_passing() => {
                    proofs.invalidate(&(keyed_mac(&key, &account, &old, &password), source)).await;
                    tracing::debug!(account, %error, "password hash is replaced with the next login");
                }
                Err(error) => {
                    tracing::warn!(account, %error, "password hash could not be replaced; a later login tries again")
                }
            }
        });
    }
}
