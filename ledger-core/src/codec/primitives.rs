//! Numbers, texts and nouns on the disk and in the log: bincode's variable-length integers, lengths checked before anything is allocated.
//!
//! **Owns** the bytes of every noun. **Must never** make a value but through its constructor, or change a byte of what exists.
//! **Read next**: [`super::commands`].

use bincode::config::{Configuration, Limit, LittleEndian, Varint, standard};
use bincode::de::Decode;
use bincode::decode_from_slice;
use bincode::enc::write::Writer;
use bincode::enc::{Encode, Encoder, EncoderImpl};
use bincode::error::EncodeError;

use super::CodecError;
use super::bounds::{self, Checked};
use crate::limits;
use crate::types::{
    InvalidValue, LedgerTime, LimitKey, Line, OfferKey, Policy, Price, Quantity, Reason, Reference, ReservationId,
    SaleId, ShardSettings, Sku, Slot, Units,
};

type Config = Configuration<LittleEndian, Varint, Limit<{ limits::RECORD_BYTES_MAX }>>;

fn config() -> Config {
    standard().with_limit::<{ limits::RECORD_BYTES_MAX }>()
}

/// The largest number that bincode's variable-length encoding writes as itself in one byte.
const SINGLE_BYTE_MAX: u64 = 250;

struct Growing<'a>(&'a mut Vec<u8>);

impl Writer for Growing<'_> {
    #[inline(always)]
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// Appends to a buffer.
pub(crate) struct Out<'a>(EncoderImpl<Growing<'a>, Config>);

impl<'a> Out<'a> {
    pub(crate) fn new(buffer: &'a mut Vec<u8>) -> Self {
        Self(EncoderImpl::new(Growing(buffer), config()))
    }
    #[inline]
    fn put(&mut self, value: impl Encode) {
        value.encode(&mut self.0).expect("writing to memory does not fail");
    }
    #[inline]
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.0.writer().write(bytes).expect("writing to memory does not fail");
    }
    #[inline]
    pub(crate) fn byte(&mut self, n: u8) {
        self.raw(&[n]);
    }
    #[inline]
    pub(crate) fn n(&mut self, n: u64) {
        if n <= SINGLE_BYTE_MAX {
            // What bincode writes for small numbers, which nearly all are, without its general case.
            self.byte(n as u8);
        } else {
            self.put(n);
        }
    }
    pub(crate) fn signed(&mut self, n: i64) {
        self.put(n);
    }
    pub(crate) fn wide(&mut self, n: u128) {
        self.raw(&n.to_le_bytes());
    }
    #[inline]
    pub(crate) fn text(&mut self, text: &str) {
        self.n(text.len() as u64);
        self.raw(text.as_bytes());
    }
    pub(crate) fn opt<T>(&mut self, value: Option<T>, put: impl FnOnce(&mut Self, T)) {
        self.byte(u8::from(value.is_some()));
        if let Some(value) = value {
            put(self, value);
        }
    }
    #[inline]
    pub(crate) fn id(&mut self, id: ReservationId) {
        self.raw(id.as_bytes());
    }
    pub(crate) fn time(&mut self, time: LedgerTime) {
        self.n(time.0);
    }
    #[inline]
    pub(crate) fn offer(&mut self, offer: &OfferKey) {
        self.text(offer.sku.as_str());
        self.opt(offer.sale.as_ref(), |out, sale| out.text(sale.as_str()));
    }
    pub(crate) fn lines(&mut self, lines: &[Line]) {
        self.n(lines.len() as u64);
        for line in lines {
            self.offer(&line.offer);
            self.n(line.quantity.get().into());
        }
    }
    pub(crate) fn policy(&mut self, p: &Policy) {
        self.byte(u8::from(p.open));
        self.opt(p.opens_at, Self::time);
        self.opt(p.closes_at, Self::time);
        self.opt(p.per_key_max, |out, n| out.n(n.into()));
        self.n(p.per_order_min.into());
        self.n(p.per_order_max.into());
        self.n(p.hold_ms_default);
        self.n(p.hold_ms_max);
        self.n(p.low_stock_at);
        self.opt(p.price.as_ref(), |out, price| out.text(price.as_str()));
    }
    pub(crate) fn settings(&mut self, s: &ShardSettings) {
        for n in [s.retain_sold_ms, s.retain_ended_ms, s.retain_refused_ms, s.remembered_max] {
            self.n(n);
        }
    }
    pub(crate) fn ranges(&mut self, ranges: &[(Slot, Slot)]) {
        self.n(ranges.len() as u64);
        for &(from, to) in ranges {
            self.n(from.get().into());
            self.n(to.get().into());
        }
    }
}

/// Reads from bytes; whatever they are, it answers.
pub(crate) struct In<'a> {
    rest: &'a [u8],
    what: &'static str,
    /// The SKU read last: a herd's entry names the same one thousands of times.
    sku: Option<Sku>,
}

type Read<T> = Result<T, CodecError>;

impl<'a> In<'a> {
    /// How long they may be is for the caller to check, who knows their format.
    pub(crate) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { rest: bytes, what, sku: None }
    }
    #[cold]
    pub(crate) fn malformed(&self, why: impl ToString) -> CodecError {
        CodecError::Malformed { what: self.what, why: why.to_string() }
    }
    #[inline]
    pub(crate) fn value<T>(&self, value: Result<T, InvalidValue>) -> Read<T> {
        value.map_err(|why| self.malformed(why))
    }
    /// A value that passed, or did not pass, the check that writing it passes as well.
    #[inline]
    pub(super) fn checked<T>(&self, checked: Checked<T>) -> Read<T> {
        checked.map_err(|why| self.malformed(why))
    }
    /// A number that must pass a check.
    #[inline]
    pub(super) fn n_checked<T>(&mut self, check: impl FnOnce(u64) -> Checked<T>) -> Read<T> {
        let n = self.n()?;
        self.checked(check(n))
    }
    pub(crate) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }
    /// Nothing may follow.
    pub(crate) fn must_end(&mut self) -> Read<()> {
        if self.is_at_end() { Ok(()) } else { Err(self.malformed("bytes follow its end")) }
    }
    #[inline(never)]
    fn get<T: Decode<()>>(&mut self) -> Read<T> {
        let (value, len) = decode_from_slice(self.rest, config()).map_err(|why| self.malformed(why))?;
        self.rest = &self.rest[len..];
        Ok(value)
    }
    #[cold]
    fn cut(&self, len: usize) -> CodecError {
        self.malformed(format!("{len} bytes are asked for, {} are left", self.rest.len()))
    }
    #[inline]
    pub(crate) fn raw(&mut self, len: usize) -> Read<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or_else(|| self.cut(len))?;
        self.rest = rest;
        Ok(taken)
    }
    #[inline]
    pub(crate) fn byte(&mut self) -> Read<u8> {
        let (&first, rest) = self.rest.split_first().ok_or_else(|| self.cut(1))?;
        self.rest = rest;
        Ok(first)
    }
    #[inline]
    pub(crate) fn n(&mut self) -> Read<u64> {
        match self.rest {
            // As in writing, without the general case.
            [first, rest @ ..] if u64::from(*first) <= SINGLE_BYTE_MAX => {
                self.rest = rest;
                Ok(u64::from(*first))
            }
            _ => self.get(),
        }
    }
    pub(crate) fn signed(&mut self) -> Read<i64> {
        self.get()
    }
    /// A number that must fit a smaller type.
    #[inline]
    pub(crate) fn small<T: TryFrom<u64>>(&mut self) -> Read<T> {
        let n = self.n()?;
        T::try_from(n).map_err(|_| self.malformed(format!("{n} is out of range")))
    }
    pub(crate) fn wide(&mut self) -> Read<u128> {
        Ok(u128::from_le_bytes(self.raw(16)?.try_into().expect("sixteen bytes")))
    }
    /// A length, refused above its bound.
    #[inline]
    pub(crate) fn count(&mut self, max: usize) -> Read<usize> {
        let got = self.n()?;
        self.within(got, max)
    }
    #[inline]
    pub(crate) fn within(&self, got: u64, max: usize) -> Read<usize> {
        if got > max as u64 {
            return Err(CodecError::TooLarge { what: self.what, got, max: max as u64 });
        }
        Ok(got as usize)
    }
    #[inline]
    pub(crate) fn text(&mut self, max: usize) -> Read<&'a str> {
        let bytes = self.sized(max)?;
        self.utf8(bytes)
    }
    #[inline]
    fn sized(&mut self, max: usize) -> Read<&'a [u8]> {
        let len = self.count(max)?;
        self.raw(len)
    }
    #[inline]
    fn utf8(&self, bytes: &'a [u8]) -> Read<&'a str> {
        std::str::from_utf8(bytes).map_err(|why| self.malformed(why))
    }
    #[inline]
    pub(crate) fn flag(&mut self) -> Read<bool> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            n => Err(self.malformed(format!("{n} is neither yes nor no"))),
        }
    }
    #[inline]
    pub(crate) fn opt<T>(&mut self, get: impl FnOnce(&mut Self) -> Read<T>) -> Read<Option<T>> {
        if self.flag()? { get(self).map(Some) } else { Ok(None) }
    }
    #[inline]
    pub(crate) fn id(&mut self) -> Read<ReservationId> {
        let bytes = self.raw(16)?.try_into().expect("sixteen bytes");
        self.value(ReservationId::from_bytes(bytes))
    }
    pub(crate) fn time(&mut self) -> Read<LedgerTime> {
        self.n().map(LedgerTime)
    }
    pub(crate) fn slot(&mut self) -> Read<Slot> {
        let n = self.small()?;
        self.value(Slot::new(n))
    }
    #[inline]
    pub(crate) fn sku(&mut self) -> Read<Sku> {
        let bytes = self.sized(limits::SKU_BYTES_MAX)?;
        if let Some(last) = self.sku.as_ref().filter(|last| last.as_str().as_bytes() == bytes) {
            return Ok(last.clone());
        }
        let sku = self.value(Sku::new(self.utf8(bytes)?))?;
        self.sku = Some(sku.clone());
        Ok(sku)
    }
    pub(crate) fn sale(&mut self) -> Read<SaleId> {
        let text = self.text(limits::SALE_ID_BYTES_MAX)?;
        self.value(SaleId::new(text))
    }
    #[inline]
    pub(crate) fn key(&mut self) -> Read<LimitKey> {
        let text = self.text(limits::LIMIT_KEY_BYTES_MAX)?;
        self.value(LimitKey::new(text))
    }
    pub(crate) fn reference(&mut self) -> Read<Reference> {
        let text = self.text(limits::REFERENCE_BYTES_MAX)?;
        self.value(Reference::new(text))
    }
    pub(crate) fn reason(&mut self) -> Read<Reason> {
        let text = self.text(limits::REASON_BYTES_MAX)?;
        self.value(Reason::new(text))
    }
    #[inline(always)]
    pub(crate) fn offer(&mut self) -> Read<OfferKey> {
        Ok(OfferKey { sku: self.sku()?, sale: self.opt(Self::sale)? })
    }
    #[inline]
    pub(crate) fn quantity(&mut self) -> Read<Quantity> {
        let n = self.small()?;
        self.value(Quantity::new(n))
    }
    pub(crate) fn units(&mut self) -> Read<Units> {
        let n = self.small()?;
        self.value(Units::new(n))
    }
    #[inline(always)]
    pub(crate) fn line(&mut self) -> Read<Line> {
        Ok(Line { offer: self.offer()?, quantity: self.quantity()? })
    }
    pub(crate) fn policy(&mut self) -> Read<Policy> {
        let policy = Policy {
            open: self.flag()?,
            opens_at: self.opt(Self::time)?,
            closes_at: self.opt(Self::time)?,
            per_key_max: self.opt(Self::small)?,
            per_order_min: self.small()?,
            per_order_max: self.small()?,
            hold_ms_default: self.n()?,
            hold_ms_max: self.n()?,
            low_stock_at: self.n()?,
            price: self.opt(|from| {
                let text = from.text(limits::PRICE_BYTES_MAX)?;
                from.value(Price::new(text))
            })?,
        };
        self.checked(bounds::policy(&policy))?;
        Ok(policy)
    }
    pub(crate) fn settings(&mut self) -> Read<ShardSettings> {
        Ok(ShardSettings {
            retain_sold_ms: self.n()?,
            retain_ended_ms: self.n()?,
            retain_refused_ms: self.n()?,
            remembered_max: self.n()?,
        })
    }
    pub(crate) fn ranges(&mut self) -> Read<Vec<(Slot, Slot)>> {
        let count = self.n_checked(bounds::range_count)?;
        let mut ranges: Vec<(Slot, Slot)> = Vec::new();
        for _ in 0..count {
            let range = (self.slot()?, self.slot()?);
            self.checked(bounds::range(ranges.last().copied(), range))?;
            ranges.push(range);
        }
        Ok(ranges)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_written_by_the_short_way_are_bincodes_own() {
        for n in [0, 1, SINGLE_BYTE_MAX - 1, SINGLE_BYTE_MAX, SINGLE_BYTE_MAX + 1, 255, 256, 1 << 16, 1 << 32, u64::MAX]
        {
            let (mut short, mut whole) = (Vec::new(), Vec::new());
            Out::new(&mut short).n(n);
            Out::new(&mut whole).put(n);
            assert_eq!(short, whole, "{n}");
            let read = |get: &dyn Fn(&mut In<'_>) -> Read<u64>| {
                let mut from = In::new("number", &whole);
                let n = get(&mut from);
                from.must_end().expect("all of it is read");
                n
            };
            assert_eq!((read(&|from| from.n()), read(&|from| from.get())), (Ok(n), Ok(n)));
            let cut = In::new("number", &whole[..whole.len() - 1]).n();
            assert!(cut.is_err(), "{n}");
        }
    }
}
