//! The codec of every message that prost decodes: prost's, with a bound on what a request may have.
//!
//! A repeated field that is empty takes 2 bytes of a request, and up to 56 once it is decoded, so a
//! bound on their number comes too late.
//!
//! **Owns** [`RequestCodec`]. **Must never** decode a request above [`REQUEST_BYTES_MAX`]. **Read
//! next**: [`crate::frames`].

use std::marker::PhantomData;

use bytes::Buf as _;
use prost::{Message, Name};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstDecoder, ProstEncoder};

use crate::limits::REQUEST_BYTES_MAX;
use crate::reply::Invalid;
use crate::status;

/// The codec: `E` is what this side sends, `D` what it receives.
#[derive(Debug, Clone)]
pub struct RequestCodec<E, D>(PhantomData<(E, D)>);

impl<E, D> Default for RequestCodec<E, D> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<E: Message + Send + 'static, D: Message + Name + Default + Send + 'static> Codec for RequestCodec<E, D> {
    type Encode = E;
    type Decode = D;
    type Encoder = ProstEncoder<E>;
    type Decoder = RequestDecoder<D>;
    fn encoder(&mut self) -> ProstEncoder<E> {
        ProstEncoder::default()
    }
    fn decoder(&mut self) -> RequestDecoder<D> {
        RequestDecoder(ProstDecoder::default())
    }
}

/// Reads messages. One whose name ends in `Request` is bounded; an answer is bounded by its client.
#[derive(Debug, Clone)]
pub struct RequestDecoder<D>(ProstDecoder<D>);

impl<D: Message + Name + Default> Decoder for RequestDecoder<D> {
    type Item = D;
    type Error = Status;
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<D>, Status> {
        let (got, is_request) = (from.remaining(), D::NAME.ends_with("Request"));
        let invalid = |why: String| status::invalid(Invalid::new("request", why));
        if is_request && got > REQUEST_BYTES_MAX {
            return Err(invalid(format!("has {got} bytes, at most {REQUEST_BYTES_MAX} are allowed")));
        }
        // tonic answers `INTERNAL`, as if this side had failed.
        self.0.decode(from).map_err(|why| if is_request { invalid(why.message().to_owned()) } else { why })
    }
}
