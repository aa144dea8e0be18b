//! Arithmetic as chains write it, computed exactly.
//!
//! `expression := term (+|- term)*`, `term := power (*|/ power)*`, `power := sign* atom (^ power)?`, and an atom is a number
//! (`1,250.50`, `$3`, `40%`), the value of an earlier step (`#2`) or an expression in parentheses. A sign binds looser than a
//! power: -2^2 is -4. Values are fractions of whole numbers of any size, so nothing is ever rounded; what is too long, too deep
//! or would grow too large is refused before it costs anything, since whoever wrote it may mean harm.

use std::fmt;

use num_bigint::{BigInt, Sign};
use num_rational::Ratio;

/// The longest expression, in bytes.
pub(crate) const LONGEST: usize = 512;
/// Parentheses, signs and powers inside one another.
const DEEPEST: usize = 32;
/// The largest numerator or denominator, in bits: over a thousand digits.
const LARGEST: u64 = 4096;
/// Decimals that a value is shown with; what needs more is shown as a fraction.
const DECIMALS: usize = 12;

/// An exact number. It shows itself as a decimal where that is exact and short, else as a fraction.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Number(Ratio<BigInt>);

/// Why an expression has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Flaw {
    /// It is not arithmetic from this byte on.
    #[error("it is no arithmetic from byte {0} on")]
    Syntax(usize),
    /// It divides by zero.
    #[error("it divides by zero")]
    DivisionByZero,
    /// It is too long, too deep, or its value too large.
    #[error("it is too large to compute")]
    TooLarge,
    /// A power whose exponent is no whole number.
    #[error("its exponent is no whole number")]
    Exponent,
    /// It names a step that has no value.
    #[error("there is no value of a step #{0}")]
    NoStep(usize),
}

/// The value of an expression. `earlier` are the values of the steps before it: `#1` is the first.
///
/// # Errors
/// What is wrong with it.
pub fn compute(expression: &str, earlier: &[Option<Number>]) -> Result<Number, Flaw> {
    if expression.len() > LONGEST {
        return Err(Flaw::TooLarge);
    }
    let mut reader = Reader { text: expression, at: 0, depth: 0, earlier };
    let value = reader.expression()?;
    match reader.peek() {
        None => Ok(value),
        Some(_) => Err(Flaw::Syntax(reader.at)),
    }
}

impl Number {
    /// A number, fraction or expression without references; `None` if it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        compute(text, &[]).ok()
    }

    fn bounded(value: Ratio<BigInt>) -> Result<Self, Flaw> {
        let bits = value.numer().bits().max(value.denom().bits());
        if bits > LARGEST { Err(Flaw::TooLarge) } else { Ok(Self(value)) }
    }

    fn is_zero(&self) -> bool {
        self.0.numer().sign() == Sign::NoSign
    }

    fn divided_by(self, other: Self) -> Result<Self, Flaw> {
        if other.is_zero() { Err(Flaw::DivisionByZero) } else { Self::bounded(self.0 / other.0) }
    }

    /// The power, if it can be had without computing anything larger than allowed.
    fn raised_to(self, exponent: &Self) -> Result<Self, Flaw> {
        if !exponent.0.is_integer() {
            return Err(Flaw::Exponent);
        }
        if self.is_zero() && exponent.0.numer().sign() == Sign::Minus {
            return Err(Flaw::DivisionByZero);
        }
        let times = u32::try_from(exponent.0.numer().magnitude()).map_err(|_| Flaw::TooLarge)?;
        let bits = self.0.numer().bits().max(self.0.denom().bits());
        // A number of b bits has at least (b - 1) * n of them in its n-th power. 0, 1 and -1 have one bit and never grow.
        if (bits - 1).saturating_mul(u64::from(times)) > LARGEST {
            return Err(Flaw::TooLarge);
        }
        let times = if bits == 1 { times.min(2 + times % 2) } else { times };
        let power = Ratio::new(self.0.numer().pow(times), self.0.denom().pow(times));
        let negative = exponent.0.numer().sign() == Sign::Minus;
        Self::bounded(if negative { power.recip() } else { power })
    }

    /// Its digits before and behind the point, if they are few.
    fn decimal(&self) -> Option<String> {
        let mut scale = BigInt::from(1);
        for places in 0..=DECIMALS {
            if (&scale % self.0.denom()).sign() == Sign::NoSign {
                let digits = (self.0.numer() * &scale / self.0.denom()).magnitude().to_string();
                let digits = format!("{digits:0>width$}", width = places + 1);
                let (whole, rest) = digits.split_at(digits.len() - places);
                let sign = if self.0.numer().sign() == Sign::Minus { "-" } else { "" };
                return Some(if places == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{rest}") });
            }
            scale *= 10;
        }
        None
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.decimal() {
            Some(decimal) => f.write_str(&decimal),
            None => write!(f, "{}/{}", self.0.numer(), self.0.denom()),
        }
    }
}

/// A reader by recursive descent.
struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    earlier: &'a [Option<Number>],
}

impl Reader<'_> {
    fn expression(&mut self) -> Result<Number, Flaw> {
        let mut value = self.term()?;
        loop {
            let sum = match self.peek() {
                Some('+') => |a: Number, b: Number| a.0 + b.0,
                Some('-' | '−') => |a: Number, b: Number| a.0 - b.0,
                _ => return Ok(value),
            };
            self.skip();
            value = Number::bounded(sum(value, self.term()?))?;
        }
    }

    fn term(&mut self) -> Result<Number, Flaw> {
        let mut value = self.power()?;
        loop {
            match self.peek() {
                Some('*' | '×' | '·' | 'x') => {
                    self.skip();
                    value = Number::bounded(value.0 * self.power()?.0)?;
                }
                Some('/' | '÷') => {
                    self.skip();
                    value = value.divided_by(self.power()?)?;
                }
                _ => return Ok(value),
            }
        }
    }

    fn power(&mut self) -> Result<Number, Flaw> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(Flaw::TooLarge);
        }
        let value = match self.peek() {
            Some('-' | '−') => {
                self.skip();
                Number(-self.power()?.0)
            }
            Some('+') => {
                self.skip();
                self.power()?
            }
            _ => self.raised()?,
        };
        self.depth -= 1;
        Ok(value)
    }

    fn raised(&mut self) -> Result<Number, Flaw> {
        let base = self.atom()?;
        let rest = self.rest();
        let mark = if rest.starts_with("**") { 2 } else { usize::from(rest.starts_with('^')) };
        if mark == 0 {
            return Ok(base);
        }
        self.at += mark;
        let exponent = self.power()?;
        base.raised_to(&exponent)
    }

    fn atom(&mut self) -> Result<Number, Flaw> {
        match self.peek() {
            Some('(') => {
                self.skip();
                let value = self.expression()?;
                if self.peek() != Some(')') {
                    return Err(Flaw::Syntax(self.at));
                }
                self.skip();
                self.percent(value)
            }
            Some('#') => {
                self.skip();
                let step = self.digits().parse().map_err(|_| Flaw::Syntax(self.at))?;
                let value = usize::checked_sub(step, 1).and_then(|i| self.earlier.get(i)?.clone());
                value.ok_or(Flaw::NoStep(step))
            }
            _ => self.number(),
        }
    }

    /// A number as people write it: a currency sign before it, commas between thousands, a percent sign behind it.
    fn number(&mut self) -> Result<Number, Flaw> {
        if matches!(self.peek(), Some('$' | '€' | '£' | '¥')) {
            self.skip();
            self.peek();
        }
        let mut digits = self.digits().to_owned();
        while !digits.is_empty() && self.begins_thousand() {
            self.at += 1;
            digits += self.digits();
        }
        let mut places = 0;
        if self.rest().starts_with('.') {
            self.at += 1;
            let decimals = self.digits();
            places = decimals.len();
            digits += decimals;
        }
        // Digits only, so it parses unless there are none.
        let whole: BigInt = digits.parse().map_err(|_| Flaw::Syntax(self.at))?;
        let value = Number::bounded(Ratio::new(whole, BigInt::from(10).pow(places as u32)))?;
        self.percent(value)
    }

    fn begins_thousand(&self) -> bool {
        let mut behind = self.rest().bytes();
        let comma = behind.next() == Some(b',');
        comma
            && behind.by_ref().take(3).filter(u8::is_ascii_digit).count() == 3
            && !matches!(behind.next(), Some(b'0'..=b'9'))
    }

    fn percent(&mut self, value: Number) -> Result<Number, Flaw> {
        if self.peek() != Some('%') {
            return Ok(value);
        }
        self.skip();
        Number::bounded(value.0 / BigInt::from(100))
    }

    fn digits(&mut self) -> &str {
        let rest = &self.text[self.at..];
        let len = rest.bytes().take_while(u8::is_ascii_digit).count();
        self.at += len;
        &rest[..len]
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    /// The next character that is no space.
    fn peek(&mut self) -> Option<char> {
        self.at = self.text.len() - self.rest().trim_start().len();
        self.rest().chars().next()
    }

    fn skip(&mut self) {
        self.at += self.rest().chars().next().map_or(0, char::len_utf8);
    }
}

#[cfg(test)]
mod tests;
