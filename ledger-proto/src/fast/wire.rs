//! Protobuf's wire format in small: varints, and fields of a message in the order they come.
//!
//! **Must never** read beyond the slice. `None` always means *unusual: let prost decide*.

/// What is left of a message.
pub(super) struct Wire<'a>(pub(super) &'a [u8]);

impl<'a> Wire<'a> {
    /// The next field's key; none at the end. Keys of fields above 15 come as bytes that no caller knows, and so are unusual.
    #[inline]
    pub(super) fn key(&mut self) -> Option<u8> {
        let (&key, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(key)
    }
    /// A varint.
    #[inline]
    pub(super) fn varint(&mut self) -> Option<u64> {
        let (&first, rest) = self.0.split_first()?;
        if first < 0x80 {
            self.0 = rest;
            return Some(first.into());
        }
        let mut value = u64::from(first & 0x7f);
        for (i, &byte) in rest.iter().enumerate().take(9) {
            if i == 8 && byte > 1 {
                return None;
            }
            value |= u64::from(byte & 0x7f) << (7 * (i + 1));
            if byte < 0x80 {
                self.0 = &rest[i + 1..];
                return Some(value);
            }
        }
        None
    }
    /// A length and so many bytes.
    #[inline]
    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.varint()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }
    /// A length and so many bytes of text.
    #[inline]
    pub(super) fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A small message put together on the stack. `N` must be chosen so that the bounds of its parts fit.
pub(super) struct Small<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Small<N> {
    #[inline]
    pub(super) fn new() -> Self {
        Self { bytes: [0; N], len: 0 }
    }
    #[inline]
    pub(super) fn byte(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }
    #[inline]
    pub(super) fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.byte(value as u8 | 0x80);
            value >>= 7;
        }
        self.byte(value as u8);
    }
    /// A varint field; left out when zero.
    #[inline]
    pub(super) fn number(&mut self, key: u8, value: u64) {
        if value != 0 {
            self.byte(key);
            self.varint(value);
        }
    }
    #[inline]
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }
    /// A length-delimited field; left out when empty.
    #[inline]
    pub(super) fn field(&mut self, key: u8, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.message(key, bytes);
        }
    }
    /// A length-delimited field, empty or not.
    #[inline]
    pub(super) fn message(&mut self, key: u8, bytes: &[u8]) {
        self.byte(key);
        self.varint(bytes.len() as u64);
        self.raw(bytes);
    }
    #[inline]
    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}
