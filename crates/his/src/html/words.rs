//! The texts of the page of passwords, in each language.
//!
//! The one rule: a text exists in every language or not at all. A client that names none of them in
//! `Accept-Language` reads English.

use http::HeaderMap;

use crate::html;
use fedgate_core::web_page::PageLanguage;

/// The texts of one language.
pub(crate) struct PageWords {
    pub(crate) language: PageLanguage,
    pub(crate) title: &'static str,
    pub(crate) heading: &'static str,
    pub(crate) current: &'static str,
    pub(crate) password: &'static str,
    pub(crate) repetition: &'static str,
    pub(crate) hint: &'static str,
    pub(crate) update: &'static str,
    pub(crate) changed: &'static str,
    /// The text after the account whose password it is.
    pub(crate) changed_more: &'static str,
    pub(crate) unknown: &'static str,
    pub(crate) unknown_more: &'static str,
    /// The heading of an error that has no page of its own.
    pub(crate) failed: &'static str,
    /// The text before the code.
    pub(crate) failed_more: &'static str,
    /// The text before the minutes to wait, after too many wrong current passwords.
    pub(crate) guessed: &'static str,
    pub(crate) required: &'static str,
    pub(crate) length: &'static str,
    pub(crate) bytes: &'static str,
    /// The same, where a Thalamus reads the same passwords.
    pub(crate) bytes_beside: &'static str,
    pub(crate) blank: &'static str,
    pub(crate) line_break: &'static str,
    pub(crate) common: &'static str,
    pub(crate) own_id: &'static str,
    pub(crate) mismatch: &'static str,
    pub(crate) wrong: &'static str,
    pub(crate) same: &'static str,
    pub(crate) expired: &'static str,
}

const ENGLISH: PageWords = PageWords {
    language: PageLanguage::English,
    title: "Change the password",
    heading: "Change the password of",
    current: "Your own current password",
    password: "New password",
    repetition: "New password, again",
    hint: "At least 6 characters. Not a common password, and not the account itself.",
    update: "Update",
    changed: "The password was changed",
    changed_more: "signs in with the new password from now on.",
    unknown: "No such person",
    unknown_more: "There is no federation account",
    failed: "The password was not changed",
    failed_more: "This could not be done. Go back and try again; if it happens again, tell the administrator this \
                  code:",
    guessed: "Your own current password was given wrong too often. You can still sign in as before. Minutes to wait \
              before the next try:",
    required: "This field is required.",
    length: "Field must be between 6 and 1024 characters long.",
    bytes: "The password is too long: letters with accents and of other alphabets take more room, and 1024 bytes are \
            kept.",
    bytes_beside: "The password is too long: only 72 bytes are used here. These are 72 plain letters, or 36 with \
                   accents or of other alphabets.",
    blank: "The password is blanks alone, which anybody guesses.",
    line_break: "The password has a line break, which no sign-in accepts.",
    common: "This password is among the 10,000 most common ones, which are tried first.",
    own_id: "The password may not be the account itself.",
    mismatch: "Passwords do not match.",
    wrong: "This is not your current password.",
    same: "This is the current password. Nothing was changed.",
    expired: "The form has expired. Please try again.",
};

const SPANISH: PageWords = PageWords {
    language: PageLanguage::Spanish,
    title: "Cambiar la contraseña",
    heading: "Cambiar la contraseña de",
    current: "Su propia contraseña actual",
    password: "Contraseña nueva",
    repetition: "Contraseña nueva, otra vez",
    hint: "Al menos 6 caracteres. No una contraseña común, ni la propia cuenta.",
    update: "Cambiar",
    changed: "La contraseña se ha cambiado",
    changed_more: "entra a partir de ahora con la contraseña nueva.",
    unknown: "Persona desconocida",
    unknown_more: "No hay ninguna cuenta de la federación",
    failed: "La contraseña no se ha cambiado",
    failed_more: "No ha sido posible. Vuelva atrás e inténtelo de nuevo; si se repite, diga este código a la \
                  administración:",
    guessed: "Su propia contraseña actual se ha dado mal demasiadas veces. Puede seguir entrando como antes. Minutos \
              de espera antes del próximo intento:",
    required: "Este campo es obligatorio.",
    length: "El campo debe tener entre 6 y 1024 caracteres.",
    bytes: "La contraseña es demasiado larga: las letras con acento y las de otros alfabetos ocupan más, y se \
            guardan 1024 bytes.",
    bytes_beside: "La contraseña es demasiado larga: aquí solo se usan 72 bytes. Son 72 letras sencillas, o 36 con acento \
                   o de otros alfabetos.",
    blank: "La contraseña son solo espacios, que cualquiera adivina.",
    line_break: "La contraseña tiene un salto de línea, con el que nadie puede entrar.",
    common: "Esta contraseña está entre las 10.000 más comunes, que son las primeras que se prueban.",
    own_id: "La contraseña no puede ser la propia cuenta.",
    mismatch: "Las contraseñas no coinciden.",
    wrong: "Esta no es su contraseña actual.",
    same: "Esta es la contraseña actual. No se ha cambiado nada.",
    expired: "El formulario ha caducado. Inténtelo de nuevo.",
};

impl PageWords {
    /// The texts in the language that the browser prefers.
    pub(crate) fn of(headers: &HeaderMap) -> &'static Self {
        match html::language(headers) {
            PageLanguage::English => &ENGLISH,
            PageLanguage::Spanish => &SPANISH,
        }
    }
}
