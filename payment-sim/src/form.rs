//! Bodies and queries as Stripe's clients send them: `application/x-www-form-urlencoded` with brackets.
//!
//! **Owns** the fields of one request until each is taken; what nobody takes is refused as unknown, as Stripe does. **Must never**
//! interpret: that is [`crate::params`]. **Read next**: [`crate::params`].

use xxhash_rust::xxh3::xxh3_64;

use crate::book::records::Pair;
use crate::limits::FIELDS_MAX;
use crate::refusal::Refusal;

/// The fields of one request.
#[derive(Debug, Default)]
pub(crate) struct Form {
    fields: Vec<Field>,
    print: u64,
}

#[derive(Debug)]
struct Field {
    /// Before the first bracket.
    base: Box<str>,
    /// What the brackets say, with the inner ones as they stand: `order` of `metadata[order]`, `a][b` of `x[a][b]`.
    inner: Option<Box<str>>,
    value: Box<str>,
}

impl Form {
    /// Reads the fields of a body or a query.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let (mut fields, mut print) = (Vec::new(), 0_u64);
        for (name, value) in form_urlencoded::parse(bytes) {
            if fields.len() == FIELDS_MAX {
                return Err(Refusal::parameter("", format!("A request has at most {FIELDS_MAX} fields.")));
            }
            // Order does not matter between fields, so neither does it to the sum.
            let one = xxh3_64(name.as_bytes()).rotate_left(1) ^ xxh3_64(value.as_bytes());
            print = print.wrapping_add(one.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31));
            let (base, inner) = match name.split_once('[') {
                None => (&*name, None),
                Some((base, rest)) => match rest.strip_suffix(']') {
                    Some(inner) if !base.is_empty() => (base, Some(inner)),
                    _ => return Err(Refusal::parameter(&name, format!("Invalid field name: {name}"))),
                },
            };
            fields.push(Field { base: base.into(), inner: inner.map(Into::into), value: value.into() });
        }
        Ok(Self { fields, print })
    }

    /// What the fields together are, for comparing requests. Their order does not matter.
    pub(crate) fn print(&self) -> u64 {
        self.print
    }

    /// The one value of `name`; an empty one is none.
    pub(crate) fn take(&mut self, name: &str) -> Result<Option<Box<str>>, Refusal> {
        let mut found = None;
        while let Some(field) = self.remove(name) {
            if field.inner.is_some() || found.is_some() {
                return Err(Refusal::parameter(name, format!("Invalid {name}: one text is expected")));
            }
            found = Some(field.value);
        }
        Ok(found.filter(|value| !value.is_empty()))
    }

    /// The pairs of `name[key]=value`. Pairs with an empty value are left out, as Stripe unsets them.
    pub(crate) fn take_map(&mut self, name: &str) -> Result<Vec<Pair>, Refusal> {
        let mut pairs: Vec<Pair> = Vec::new();
        while let Some(field) = self.remove(name) {
            match field.inner {
                None if field.value.is_empty() => {}
                Some(key) if !key.is_empty() && !key.contains(['[', ']']) => {
                    if pairs.iter().any(|(k, _)| *k == key) {
                        return Err(Refusal::parameter(name, format!("Invalid {name}: {key} is there twice")));
                    }
                    pairs.push((key, field.value));
                }
                _ => return Err(Refusal::parameter(name, format!("Invalid {name}: expected {name}[key]=value"))),
            }
        }
        pairs.retain(|(_, value)| !value.is_empty());
        Ok(pairs)
    }

    /// The values of `name[]=…` or `name[0]=…`, in the order they stand.
    pub(crate) fn take_list(&mut self, name: &str) -> Result<Vec<Box<str>>, Refusal> {
        let mut values = Vec::new();
        while let Some(field) = self.remove(name) {
            match field.inner {
                Some(at) if at.bytes().all(|b| b.is_ascii_digit()) => values.push(field.value),
                _ => return Err(Refusal::parameter(name, format!("Invalid {name}: expected {name}[]=value"))),
            }
        }
        Ok(values)
    }

    /// Drops `name` with all it says.
    pub(crate) fn ignore(&mut self, name: &str) {
        self.fields.retain(|field| *field.base != *name);
    }

    /// Refuses what nobody took.
    pub(crate) fn finish(self) -> Result<(), Refusal> {
        match self.fields.first() {
            None => Ok(()),
            Some(Field { base, inner, .. }) => {
                let name = inner.as_ref().map_or_else(|| base.to_string(), |inner| format!("{base}[{inner}]"));
                Err(Refusal::unknown_parameter(&name))
            }
        }
    }

    fn remove(&mut self, name: &str) -> Option<Field> {
        let at = self.fields.iter().position(|field| *field.base == *name)?;
        Some(self.fields.remove(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(text: &str) -> Form {
        Form::parse(text.as_bytes()).expect("a form")
    }

    #[test]
    fn brackets_make_maps_and_lists() {
        let mut form =
            form("amount=100&metadata[order]=a%26b&expand[]=x&metadata%5Bn%5D=2&expand[1]=y&empty=&metadata[gone]=");
        assert_eq!(form.take("amount").expect("one").as_deref(), Some("100"));
        assert_eq!(form.take("empty").expect("none"), None);
        let metadata = form.take_map("metadata").expect("a map");
        assert_eq!(metadata, [("order".into(), "a&b".into()), ("n".into(), "2".into())]);
        assert_eq!(form.take_list("expand").expect("a list"), ["x".into(), "y".into()]);
        form.finish().expect("nothing left");
    }

    #[test]
    fn what_nobody_takes_is_unknown() {
        let left = form("amount=1&shipping[name]=x");
        let refusal = {
            let mut left = left;
            left.ignore("amount");
            left.finish().expect_err("unknown")
        };
        assert_eq!(refusal.param.as_deref(), Some("shipping[name]"));
        assert!(Form::parse(b"metadata[order=1").is_err());
        assert!(form("amount=1&amount=2").take("amount").is_err());
        assert!(form("metadata=1").take_map("metadata").is_err());
    }

    #[test]
    fn the_print_tells_requests_apart_but_not_orders_of_fields() {
        assert_eq!(form("a=1&b=2").print(), form("b=2&a=1").print());
        for other in ["a=2&b=1", "a=1", "a=1&b=2&b=2", "ab=12", ""] {
            assert_ne!(form("a=1&b=2").print(), form(other).print(), "{other}");
        }
    }
}
