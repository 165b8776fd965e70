//! The page of passwords as HTML: the form, its result, and its errors.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_LANGUAGE, SET_COOKIE, VARY};

use super::fault::FormFault;
use super::words::PageWords;
use crate::html;
use fedgate_core::web_page::escape;

/// The faults of a form, by field.
#[derive(Default)]
pub(crate) struct FormComplaints {
    pub(crate) form: Option<FormFault>,
    pub(crate) current: Option<FormFault>,
    pub(crate) password: Option<FormFault>,
    pub(crate) repetition: Option<FormFault>,
}

impl FormComplaints {
    pub(crate) fn is_empty(&self) -> bool {
        self.first().is_none()
    }

    /// The first fault, in the order of the fields.
    pub(crate) fn first(&self) -> Option<FormFault> {
        self.form.or(self.current).or(self.password).or(self.repetition)
    }

    /// The texts of the faults: of the form, then of its fields.
    fn told(&self, words: &PageWords) -> [Option<&'static str>; 4] {
        [self.form, self.current, self.password, self.repetition].map(|fault| fault.map(|fault| fault.text(words)))
    }
}

/// The facts that the form shows.
pub(crate) struct PasswordForm<'a> {
    /// The person whose password it changes.
    pub(crate) id: &'a str,
    /// The caller whose current password is asked for, if it is.
    pub(crate) asked: Option<&'a str>,
    /// The token against cross-site request forgery.
    pub(crate) token: &'a str,
}

/// The form, with the faults of what was submitted.
pub(crate) fn form(
    words: &PageWords,
    form: &PasswordForm<'_>,
    complaints: &FormComplaints,
    set_cookie: String,
) -> Response {
    let id = escape(form.id);
    let [of_form, of_current, of_password, of_repetition] = FieldComplaint::each(complaints, words);
    let general = match of_form.text {
        Some(text) => {
            format!("<p class=\"error\" role=\"alert\" tabindex=\"-1\"{}>{text}</p>\n", of_form.focus)
        }
        None => String::new(),
    };
    let sections = FormSections::of(form);
    let current = current_fields(words, form, &sections, &of_current);
    let new = new_fields(words, &sections, (&of_password, &of_repetition));
    let main = format!(
        "<h1>{} {id}</h1>\n{general}<form method=\"post\" accept-charset=\"utf-8\">\n\
         <input type=\"hidden\" name=\"csrf_token\" value=\"{}\">\n\
         {}<button type=\"submit\" name=\"update\" value=\"update\">{}</button>\n</form>\n",
        words.heading,
        form.token,
        sections.in_order(&id, &current, &new),
        words.update
    );
    let page = page(words, StatusCode::OK, words.title, &main);
    ([(SET_COOKIE, set_cookie)], page).into_response()
}

/// The complaint about one field, and the attribute that focuses the field.
struct FieldComplaint {
    text: Option<&'static str>,
    focus: &'static str,
}

impl FieldComplaint {
    /// The complaints about the form, then about its fields.
    fn each(complaints: &FormComplaints, words: &PageWords) -> [Self; 4] {
        // The first fault has the focus, so that a screen reader reads it and the page scrolls to it.
        let mut is_first = true;
        complaints.told(words).map(|text| match text {
            Some(_) if std::mem::take(&mut is_first) => Self { text, focus: " autofocus" },
            Some(_) | None => Self { text, focus: "" },
        })
    }
}

/// The sections of the form's fields, as `autocomplete` names them. They keep a password manager from storing the new
/// password of one account for the other.
struct FormSections {
    own: &'static str,
    other: &'static str,
}

impl FormSections {
    fn of(form: &PasswordForm<'_>) -> Self {
        match form.asked {
            Some(account) if account != form.id => Self { own: "section-own ", other: "section-other " },
            Some(_) | None => Self { own: "", other: "" },
        }
    }

    /// All fields. A password manager takes a password for the account whose name precedes it.
    fn in_order(&self, id: &str, current: &str, new: &str) -> String {
        let username = format!(
            "<input type=\"text\" name=\"username\" value=\"{id}\" autocomplete=\"{}username\" readonly hidden>\n",
            self.other
        );
        match self.own {
            "" => format!("{username}{current}{new}"),
            _ => format!("{current}{username}{new}"),
        }
    }
}

/// The field for the caller's current password, if it is asked for.
fn current_fields(
    words: &PageWords,
    form: &PasswordForm<'_>,
    sections: &FormSections,
    complaint: &FieldComplaint,
) -> String {
    let Some(account) = form.asked.map(escape) else { return String::new() };
    let own = sections.own;
    let username = match own {
        "" => String::new(),
        _ => format!("<input type=\"text\" value=\"{account}\" autocomplete=\"{own}username\" readonly hidden>\n"),
    };
    let (label, autocomplete) = (format!("{} ({account})", words.current), format!("{own}current-password"));
    let field = PasswordField { name: "current", label: &label, autocomplete, hint: None };
    format!("{username}{}", field.html(complaint))
}

/// The fields for the new password and its repetition.
fn new_fields(
    words: &PageWords,
    sections: &FormSections,
    (of_password, of_repetition): (&FieldComplaint, &FieldComplaint),
) -> String {
    let autocomplete = || format!("{}new-password", sections.other);
    let (label, hint) = (words.password, Some(words.hint));
    let password = PasswordField { name: "password", label, autocomplete: autocomplete(), hint };
    let label = words.repetition;
    let repetition = PasswordField { name: "pconfirm", label, autocomplete: autocomplete(), hint: None };
    format!("{}{}", password.html(of_password), repetition.html(of_repetition))
}

/// A field for a password.
struct PasswordField<'a> {
    name: &'a str,
    label: &'a str,
    autocomplete: String,
    /// The rules for a new password. There is no `maxlength`, because a browser would silently cut a longer password.
    hint: Option<&'a str>,
}

impl PasswordField<'_> {
    fn html(&self, complaint: &FieldComplaint) -> String {
        let Self { name, label, autocomplete, hint } = self;
        let FieldComplaint { text: complaint, focus } = complaint;
        // Length rules are for new passwords. An existing one may be shorter.
        let bounds = if *name == "current" { "" } else { " minlength=\"6\"" };
        let (hint_id, hint) = match hint {
            Some(hint) => (format!("{name}-hint "), format!("<p class=\"hint\" id=\"{name}-hint\">{hint}</p>\n")),
            None => (String::new(), String::new()),
        };
        let (invalid, error_id, message) = match complaint {
            None => ("", String::new(), String::new()),
            Some(text) => (
                " aria-invalid=\"true\"",
                format!("{name}-error"),
                format!("<p class=\"error\" id=\"{name}-error\" role=\"alert\">{text}</p>\n"),
            ),
        };
        let described = match format!("{hint_id}{error_id}").trim_end() {
            "" => String::new(),
            ids => format!(" aria-describedby=\"{ids}\""),
        };
        format!(
            "<label for=\"{name}\">{label}</label>\n<input type=\"password\" id=\"{name}\" name=\"{name}\" \
             required{bounds} autocomplete=\"{autocomplete}\"{described}{invalid}{focus}>\n{hint}{message}"
        )
    }
}

/// The page that confirms a change.
pub(crate) fn changed(words: &PageWords, id: &str) -> Response {
    let id = escape(id);
    let main =
        format!("<h1>{}</h1>\n<p role=\"status\"><strong>{id}</strong> {}</p>\n", words.changed, words.changed_more);
    page(words, StatusCode::OK, words.changed, &main)
}

/// The page for an id that belongs to no person.
pub(crate) fn unknown(words: &PageWords, id: &str) -> Response {
    let main = format!("<h1>{}</h1>\n<p>{} {}.</p>\n", words.unknown, words.unknown_more, escape(id));
    page(words, StatusCode::NOT_FOUND, words.unknown, &main)
}

/// The page for an error that any route may have.
pub(crate) fn failed(words: &PageWords, status: StatusCode, code: &str) -> Response {
    let main = format!("<h1>{}</h1>\n<p role=\"alert\">{} <code>{code}</code></p>\n", words.failed, words.failed_more);
    page(words, status, words.failed, &main)
}

/// The page for a caller with too many wrong current passwords.
pub(crate) fn guessed(words: &PageWords, status: StatusCode, wait: Duration) -> Response {
    let minutes = wait.as_secs() / 60 + 1;
    let main = format!("<h1>{}</h1>\n<p role=\"alert\">{} {minutes}</p>\n", words.failed, words.guessed);
    page(words, status, words.failed, &main)
}

fn page(words: &PageWords, status: StatusCode, title: &str, main: &str) -> Response {
    let page = html::page(status, words.language, title, main);
    let headers =
        [(CACHE_CONTROL, "no-store"), (CONTENT_LANGUAGE, words.language.tag()), (VARY, "Accept, Accept-Language")];
    (headers, page).into_response()
}
