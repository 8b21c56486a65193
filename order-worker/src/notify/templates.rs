//! Texts of mails: a directory over built-in ones, by ending and language.
//!
//! **What it is.** `sold.de.txt` in the directory is for orders that ended sold and buyers who read German; the first line is
//! `Subject: …`, an empty line follows, then the text. Looked for in turn: language and region, language, English; each in the directory
//! first. Jinja's syntax; `order`, `name`, `amount`, `currency`, `minor`, `lines` (`sku`, `quantity`, `sale`), `linked`.
//!
//! **Owns** which text. **Must never** leave a buyer without one: the built-in texts are checked in tests.

use std::path::Path;

use ledger_core::order::Ending;
use minijinja::{Environment, context};

use super::Message;

const BUILT_IN: &[(&str, &str)] = &[
    (
        "sold.en",
        "Subject: Your order {{ order }}\n\nHello{% if name %} {{ name }}{% endif %},\n\nthank you: your order is paid ({{ amount }}).\n{% for line in lines %}\n  {{ line.quantity }} x {{ line.sku }}{% endfor %}\n",
    ),
    (
        "released.en",
        "Subject: Your order {{ order }} was not paid\n\nHello{% if name %} {{ name }}{% endif %},\n\nyour payment of {{ amount }} did not go through, so nothing was charged and your items are no longer held.\n",
    ),
    (
        "expired.en",
        "Subject: Your order {{ order }} expired\n\nHello{% if name %} {{ name }}{% endif %},\n\nwe could not process your payment in time. Nothing was charged and your items are no longer held.\n",
    ),
    (
        "refunded.en",
        "Subject: Your money for order {{ order }} is on its way back\n\nHello{% if name %} {{ name }}{% endif %},\n\nyour payment of {{ amount }} was given back in full.\n",
    ),
    (
        "sold.de",
        "Subject: Ihre Bestellung {{ order }}\n\nGuten Tag{% if name %} {{ name }}{% endif %},\n\nvielen Dank: Ihre Bestellung ist bezahlt ({{ amount }}).\n{% for line in lines %}\n  {{ line.quantity }} x {{ line.sku }}{% endfor %}\n",
    ),
    (
        "released.de",
        "Subject: Ihre Bestellung {{ order }} wurde nicht bezahlt\n\nGuten Tag{% if name %} {{ name }}{% endif %},\n\nIhre Zahlung von {{ amount }} kam nicht zustande. Es wurde nichts abgebucht, und die Artikel sind nicht mehr reserviert.\n",
    ),
    (
        "expired.de",
        "Subject: Ihre Bestellung {{ order }} ist abgelaufen\n\nGuten Tag{% if name %} {{ name }}{% endif %},\n\nIhre Zahlung konnte nicht rechtzeitig bearbeitet werden. Es wurde nichts abgebucht, und die Artikel sind nicht mehr reserviert.\n",
    ),
    (
        "refunded.de",
        "Subject: Ihr Geld für Bestellung {{ order }} kommt zurück\n\nGuten Tag{% if name %} {{ name }}{% endif %},\n\nIhre Zahlung von {{ amount }} wurde vollständig zurückerstattet.\n",
    ),
];

/// A text that is ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// One line.
    pub subject: String,
    /// The rest.
    pub body: String,
}

/// Why the texts cannot be used; each names the file.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The directory, or a file in it, cannot be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file's name says neither ending nor language.
    #[error(
        "{name:?} is no template's name: it is ENDING.LANGUAGE.txt, as sold.en.txt; endings are sold, released, expired, refunded"
    )]
    NotAName {
        /// The name.
        name: String,
    },
    /// A file is no template, or has no subject.
    #[error("{name} is no template: {why}")]
    NotATemplate {
        /// The name.
        name: String,
        /// Why.
        why: String,
    },
}

/// All texts, parsed and tried once.
pub struct Templates(Environment<'static>);

impl Templates {
    /// The built-in texts, and over them those of a directory.
    ///
    /// # Errors
    /// [`TemplateError`]: better at the start than at the first buyer.
    pub fn load(directory: Option<&Path>) -> Result<Self, TemplateError> {
        let mut all = Environment::new();
        for (name, text) in BUILT_IN {
            all.add_template(name, text).map_err(|e| not_one(name, &e))?;
        }
        let Some(directory) = directory else { return Ok(Self(all)) };
        let unreadable = |path: &Path| {
            let path = path.display().to_string();
            move |source| TemplateError::Unreadable { path, source }
        };
        for entry in std::fs::read_dir(directory).map_err(unreadable(directory))? {
            let path = entry.map_err(unreadable(directory))?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".txt")) else { continue };
            let (ending, _) = name.split_once('.').unwrap_or_default();
            if !["sold", "released", "expired", "refunded"].contains(&ending) {
                return Err(TemplateError::NotAName { name: format!("{name}.txt") });
            }
            let text = std::fs::read_to_string(&path).map_err(unreadable(&path))?;
            if !text.starts_with("Subject: ") {
                let why = "its first line must be Subject: ...".to_owned();
                return Err(TemplateError::NotATemplate { name: name.to_owned(), why });
            }
            all.add_template_owned(name.to_lowercase(), text).map_err(|e| not_one(name, &e))?;
        }
        Ok(Self(all))
    }

    /// The text for a message.
    ///
    /// # Errors
    /// Why it cannot be made.
    pub fn render(&self, message: &Message) -> Result<Text, String> {
        let ending = message.ending.name();
        let lang = message.contact.lang.as_deref().unwrap_or("en").to_lowercase().replace('_', "-");
        let short = lang.split('-').next().unwrap_or("en").to_owned();
        let names = [format!("{ending}.{lang}"), format!("{ending}.{short}"), format!("{ending}.en")];
        let template = names.iter().find_map(|name| self.0.get_template(name).ok());
        let template = template.ok_or_else(|| format!("there is no text for {ending}"))?;
        let lines: Vec<_> = message
            .lines
            .iter()
            .map(|line| {
                let sale = line.offer.sale.as_ref().map(ToString::to_string);
                context! { sku => line.offer.sku.as_str(), quantity => line.quantity.get(), sale }
            })
            .collect();
        let values = context! {
            order => message.order.to_string(),
            name => message.contact.name.clone(),
            amount => in_words(message.amount),
            currency => message.amount.currency(),
            minor => message.amount.minor(),
            linked => message.linked.map(|id| id.to_string()),
            lines,
        };
        let text = template.render(values).map_err(|e| e.to_string())?;
        let (subject, body) = text.split_once("\n").unwrap_or((&text, ""));
        let subject = subject.strip_prefix("Subject: ").unwrap_or(subject).replace('\r', "");
        Ok(Text { subject: subject.trim().to_owned(), body: body.trim_start_matches(['\r', '\n']).to_owned() })
    }
}

fn not_one(name: &str, error: &minijinja::Error) -> TemplateError {
    TemplateError::NotATemplate { name: name.to_owned(), why: error.to_string() }
}

/// An amount as people read it: `12.50 EUR`, `1250 JPY`.
pub fn in_words(amount: ledger_core::order::Money) -> String {
    let digits = match amount.currency() {
        "BIF" | "CLP" | "DJF" | "GNF" | "JPY" | "KMF" | "KRW" | "MGA" | "PYG" | "RWF" | "UGX" | "VND" | "VUV"
        | "XAF" | "XOF" | "XPF" => 0,
        "BHD" | "IQD" | "JOD" | "KWD" | "LYD" | "OMR" | "TND" => 3,
        _ => 2,
    };
    let unit = 10_u64.pow(digits);
    match digits {
        0 => format!("{} {}", amount.minor(), amount.currency()),
        _ => {
            let width = digits as usize;
            format!("{}.{:0width$} {}", amount.minor() / unit, amount.minor() % unit, amount.currency())
        }
    }
}

/// Endings that buyers are told of.
pub const TOLD: [Ending; 4] = [Ending::Sold, Ending::Released, Ending::Expired, Ending::Refunded];

#[cfg(test)]
mod tests {
    use client_sdk::Contact;
    use ledger_core::order::Money;
    use ledger_core::{Line, OfferKey, Quantity, ReservationId, Sku, Slot};

    use super::*;

    fn message(ending: Ending, lang: Option<&str>) -> Message {
        let offer = OfferKey { sku: Sku::new("shoe-42").expect("a SKU"), sale: None };
        Message {
            key: "k".into(),
            order: ReservationId::from_parts(Slot::new(1).expect("a slot"), 1, 1),
            ending,
            amount: Money::new(1_250, "EUR").expect("money"),
            lines: vec![Line { offer, quantity: Quantity::new(2).expect("two") }],
            linked: None,
            contact: Contact { lang: lang.map(Into::into), name: Some("Anna".into()), ..Contact::default() },
        }
    }

    #[test]
    fn every_ending_has_a_text_in_every_language_and_in_unknown_ones() {
        let templates = Templates::load(None).expect("the built-in texts");
        for ending in TOLD {
            for lang in [None, Some("en"), Some("de-AT"), Some("tlh"), Some("")] {
                let text = templates.render(&message(ending, lang)).expect("a text");
                assert!(text.subject.contains("00000000-0001"), "{text:?}");
                assert!(text.body.contains("Anna") && !text.body.contains("{{"), "{text:?}");
            }
        }
        let german = templates.render(&message(Ending::Sold, Some("de_AT"))).expect("a text");
        assert!(german.body.contains("bezahlt (12.50 EUR)") && german.body.contains("2 x shoe-42"), "{german:?}");
    }

    #[test]
    fn a_directory_wins_over_the_built_in_texts_and_is_checked_at_the_start() {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).expect("written");
        write("sold.en.txt", "Subject: {{ minor }}\n\nours\n");
        let templates = Templates::load(Some(directory.path())).expect("texts");
        let text = templates.render(&message(Ending::Sold, None)).expect("a text");
        assert_eq!((text.subject.as_str(), text.body.as_str()), ("1250", "ours"));
        write("sold.fr.txt", "no subject");
        assert!(matches!(Templates::load(Some(directory.path())), Err(TemplateError::NotATemplate { .. })));
        write("sold.fr.txt", "Subject: {{ x\n");
        assert!(matches!(Templates::load(Some(directory.path())), Err(TemplateError::NotATemplate { .. })));
        write("sold.fr.txt", "Subject: x\n");
        write("other.en.txt", "Subject: x\n");
        assert!(matches!(Templates::load(Some(directory.path())), Err(TemplateError::NotAName { .. })));
    }

    #[test]
    fn amounts_read_as_their_currency_has_it() {
        let words = |minor, currency| in_words(Money::new(minor, currency).expect("money"));
        assert_eq!(words(5, "EUR"), "0.05 EUR");
        assert_eq!(words(1_250, "JPY"), "1250 JPY");
        assert_eq!(words(1_250, "KWD"), "1.250 KWD");
    }
}
