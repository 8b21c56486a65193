//! What is written comes back, by hand and by prost; bad input is named.

mod conversions;
mod entries;
mod frames;
mod given;
mod secrets;
