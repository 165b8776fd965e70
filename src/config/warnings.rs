//! What of a valid configuration is worth a word to the operator.
//!
//! The one rule: a warning is one line that names what it is about, its key and a remedy, and stops nothing.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::Config;

impl Config {
    /// What is worth a word to the operator, and no fault: one line each, naming file, key and remedy.
    pub fn warnings(&self) -> Vec<String> {
        let secrets = self.secret_files.iter().map(|(key, path)| (*key, path));
        let own =
            self.tls.certificates.iter().map(|pair| ("tls", &pair.key)).filter(|_| !self.gateway.listen.is_empty());
        let identities = self.upstreams.iter().filter_map(|upstream| upstream.tls.identity.as_ref());
        let files = secrets.chain(own).chain(identities.map(|identity| ("upstream.tls", &identity.key)));
        let is_open = |path: &Path| std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o077 != 0);
        let open = files.filter(|(_, path)| is_open(path));
        let open = open.map(|(key, path)| {
            let path = path.display();
            format!("{path}: others than its owner may read or write this secret of `{key}`; give it to the user that runs this, and chmod 600 {path}")
        });
        let undefended = (!self.cors.refuses_foreign).then(|| {
            "`cors.refuse_foreign_writes` is false: any web page can write with the password that a browser holds; leave the \
             key out, and name in `cors.own_origins` what is yours"
                .to_owned()
        });
        let counted = self.authentication.hasher_queue_is_counted.then(|| {
            let file = self.file.display();
            format!(
                "{file}: `authentication.hasher_queue` counts verifications, of which one may cost as much as thirty others; \
                 it is taken for {} ms of work; write `authentication.hasher_queue_ms` instead",
                self.authentication.hasher_queue.as_millis()
            )
        });
        open.chain(undefended).chain(counted).collect()
    }
}
