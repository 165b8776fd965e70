//! Messages of the gateway on the password page, for people.
//!
//! The one rule: a browser that asks for HTML there gets a page in its language, with the status and the stable
//! code that other clients get as JSON. The page never claims an outcome of a forwarded change that is not known.

use http::{HeaderMap, header};
use pingora_proxy::Session;

use super::request;
use fedgate_core::web_page::{PageLanguage, PageStyle, asks_for, escape, page};

/// The page where people change their passwords, whichever service has it.
const PEOPLES_PATH: &str = "/password";

/// The language of the person who reads the answer, if a person does.
pub(crate) fn reader(session: &Session) -> Option<PageLanguage> {
    let target = request::target(session, None);
    is_peoples(target.as_bytes()).then(|| language(&session.req_header().headers)).flatten()
}

fn is_peoples(target: &[u8]) -> bool {
    let rest = target.strip_prefix(PEOPLES_PATH.as_bytes());
    rest.is_some_and(|rest| rest.is_empty() || matches!(rest.first(), Some(b'/' | b'?')))
}

fn language(headers: &HeaderMap) -> Option<PageLanguage> {
    let asks = headers.get_all(header::ACCEPT).iter().any(|accept| asks_for(accept.as_bytes(), "text/html"));
    let accepted = headers.get_all(header::ACCEPT_LANGUAGE).iter().filter_map(|value| value.to_str().ok());
    asks.then(|| PageLanguage::preferred(accepted))
}

/// The content of a notice.
pub(crate) struct PageNotice<'a> {
    pub(crate) status: u16,
    pub(crate) code: &'a str,
    /// Whether the request may have changed something.
    pub(crate) is_write: bool,
    /// Seconds to wait, if known.
    pub(crate) retry_after: Option<&'a str>,
    pub(crate) request_id: &'a str,
}

impl PageNotice<'_> {
    /// The page in one language.
    pub(crate) fn html(&self, language: PageLanguage) -> String {
        let words = match language {
            PageLanguage::English => &ENGLISH,
            PageLanguage::Spanish => &SPANISH,
        };
        let (title, text) = self.text(words);
        let wait = self.retry_after.map_or(String::new(), |seconds| {
            let wait = if seconds == "1" { words.wait_one } else { words.wait };
            format!("<p>{}</p>\n", wait.replace("{}", &format!("<strong>{}</strong>", escape(seconds))))
        });
        let main = format!(
            "<h1>{title}</h1>\n<p role=\"alert\">{text}</p>\n{wait}<p class=\"hint\">{} <code>{}</code>, \
             <code>{}</code></p>\n",
            words.code,
            escape(self.code),
            escape(self.request_id)
        );
        page(language, title, &main, PageStyle::Carried)
    }

    fn text(&self, words: &NoticeWords) -> (&'static str, &'static str) {
        match (self.status, self.code) {
            (401, _) => words.sign_in,
            (403, "foreign_origin" | "foreign_credential") => words.other_site,
            (403, _) => words.not_allowed,
            (429, _) => words.too_many,
            (503, "accounts_unavailable" | "busy") => words.not_now,
            // A write may have been done although its answer was lost.
            (500.., _) if self.is_write => words.unsure,
            (500.., _) => words.not_now,
            _ => words.not_understood,
        }
    }
}

/// The words of one language: title and text of each notice.
struct NoticeWords {
    sign_in: (&'static str, &'static str),
    other_site: (&'static str, &'static str),
    not_allowed: (&'static str, &'static str),
    too_many: (&'static str, &'static str),
    not_now: (&'static str, &'static str),
    unsure: (&'static str, &'static str),
    not_understood: (&'static str, &'static str),
    /// With `{}` for the seconds.
    wait: &'static str,
    /// The same for one second.
    wait_one: &'static str,
    code: &'static str,
}

const ENGLISH: NoticeWords = NoticeWords {
    sign_in: (
        "Not signed in",
        "Load this page again, and sign in with your federation account and its current password. If you do not know \
         it, ask the administrator.",
    ),
    other_site: (
        "The password was not changed",
        "Another site sent this request. Open the address of this page yourself, and fill in its form.",
    ),
    not_allowed: (
        "Not allowed",
        "Your account may not change this password. Check the account in the address of this page.",
    ),
    too_many: ("Too many attempts", "There were too many wrong passwords. Nothing was changed."),
    not_now: (
        "Not possible now",
        "The service cannot be reached, or has too much to do. Please try again in a moment.",
    ),
    unsure: (
        "It is not known whether the password was changed",
        "The service did not answer. Sign in with the new password first; if it is not known, the old one still \
         counts.",
    ),
    not_understood: (
        "This did not work",
        "The request could not be read, or there is no such page. Nothing was changed.",
    ),
    wait: "Please wait {} seconds.",
    wait_one: "Please wait {} second.",
    code: "For the administrator:",
};

const SPANISH: NoticeWords = NoticeWords {
    sign_in: (
        "No ha entrado",
        "Vuelva a cargar esta página y entre con su cuenta de la federación y su contraseña actual. Si no la sabe, \
         pregunte a la administración.",
    ),
    other_site: (
        "La contraseña no se ha cambiado",
        "Otro sitio ha enviado esta petición. Abra usted la dirección de esta página y rellene su formulario.",
    ),
    not_allowed: (
        "No permitido",
        "Su cuenta no puede cambiar esta contraseña. Compruebe la cuenta en la dirección de esta página.",
    ),
    too_many: ("Demasiados intentos", "Ha habido demasiadas contraseñas incorrectas. No se ha cambiado nada."),
    not_now: (
        "Ahora no es posible",
        "No se puede llegar al servicio, o tiene demasiado que hacer. Inténtelo de nuevo dentro de un momento.",
    ),
    unsure: (
        "No se sabe si la contraseña se ha cambiado",
        "El servicio no ha contestado. Pruebe primero a entrar con la contraseña nueva; si no la conoce, sigue \
         valiendo la anterior.",
    ),
    not_understood: (
        "No ha funcionado",
        "La petición no se puede leer, o no existe tal página. No se ha cambiado nada.",
    ),
    wait: "Espere {} segundos, por favor.",
    wait_one: "Espere {} segundo, por favor.",
    code: "Para la administración:",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_shown_in_the_readers_language() {
        let told = |language, status, code, is_write, retry_after| {
            PageNotice { status, code, is_write, retry_after, request_id: "r<1>" }.html(language)
        };
        use PageLanguage::{English, Spanish};
        for (status, code, is_write, english, spanish) in [
            (401, "unauthenticated", false, "Not signed in", "No ha entrado"),
            (403, "not_permitted", false, "Not allowed", "No permitido"),
            (403, "foreign_origin", true, "Another site", "Otro sitio"),
            (503, "accounts_unavailable", true, "Not possible now", "Ahora no es posible"),
            (503, "not_recorded", true, "It is not known", "No se sabe"),
            (504, "upstream_timeout", true, "It is not known", "No se sabe"),
            (504, "upstream_timeout", false, "Not possible now", "Ahora no es posible"),
            (400, "bad_request_target", false, "This did not work", "No ha funcionado"),
        ] {
            for (language, words) in [(English, english), (Spanish, spanish)] {
                let html = told(language, status, code, is_write, None);
                assert!(html.contains(words) && html.contains(code) && html.contains("r&lt;1&gt;"), "{html}");
                assert!(html.contains(&format!("<html lang=\"{}\">", language.tag())), "{html}");
            }
        }
        let html = told(Spanish, 429, "too_many_attempts", false, Some("7"));
        assert!(html.contains("Espere <strong>7</strong> segundos,"), "{html}");
        for (language, seconds, words) in [
            (Spanish, "1", "Espere <strong>1</strong> segundo, por favor."),
            (English, "1", "Please wait <strong>1</strong> second."),
            (English, "11", "Please wait <strong>11</strong> seconds."),
        ] {
            assert!(told(language, 503, "busy", false, Some(seconds)).contains(words), "{seconds}");
        }
    }

    #[test]
    fn the_page_of_passwords_is_for_people_and_no_other() {
        for (target, expected) in [
            ("/password/ANA", true),
            ("/password/ANA?x", true),
            ("/password/../x", true),
            ("/password", true),
            ("/password?x", true),
            ("/passwords", false),
            ("/people/password/ANA", false),
            ("", false),
        ] {
            assert_eq!(is_peoples(target.as_bytes()), expected, "{target}");
        }
    }
}
