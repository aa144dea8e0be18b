//! OpenAI's wire types beside explicit conversions to and from the plain values.
