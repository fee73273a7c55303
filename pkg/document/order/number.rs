use std::cmp::Ordering;

use bson::RawBsonRef;

/// 2^53: beyond it, not every integer has a double.
const EXACT_INTEGERS: f64 = 9_007_199_254_740_992.0;

/// 2^63: beyond it there are no more `Int64`.
const BEYOND_INTEGERS: f64 = 9_223_372_036_854_775_808.0;

/// A number of any BSON type, compared by its exact value; NaN, of which there is one, comes first.
pub(super) enum Number {
    Integer(i64),
    Double(f64),
    Decimal(Digits),
}

impl Number {
    pub(super) fn new(value: RawBsonRef<'_>) -> Option<Self> {
        Some(match value {
            RawBsonRef::Int32(number) => Self::Integer(number.into()),
            RawBsonRef::Int64(number) => Self::Integer(number),
            RawBsonRef::Double(number) => Self::Double(number),
            RawBsonRef::Decimal128(number) => match number.to_string().as_str() {
                "NaN" => Self::Double(f64::NAN),
                "Infinity" => Self::Double(f64::INFINITY),
                "-Infinity" => Self::Double(f64::NEG_INFINITY),
                text => Self::Decimal(Digits::parse(text)),
            },
            _ => return None,
        })
    }

    pub(super) fn compare(self, other: Self) -> Ordering {
        match (&self, &other) {
            (Self::Integer(a), Self::Integer(b)) => a.cmp(b),
            (Self::Decimal(a), Self::Decimal(b)) => a.compare(b),
            (Self::Decimal(a), b) => b.compare_with(a).reverse(),
            (a, Self::Decimal(b)) => a.compare_with(b),
            // Between integers and doubles the keys are exact.
            (a, b) => a.key().cmp(&b.key()),
        }
    }

    fn compare_with(&self, decimal: &Digits) -> Ordering {
        match self {
            Self::Integer(number) => Digits::parse(&number.to_string()).compare(decimal),
            Self::Double(number) => compare_double(*number, decimal),
            Self::Decimal(number) => number.compare(decimal),
        }
    }

    pub(super) fn encode(&self, key: &mut Vec<u8>) {
        let (double, beyond) = self.key();
        key.extend(double.to_be_bytes());
        key.extend(beyond.to_be_bytes());
    }

    /// The largest double that is not larger, as sortable bits, and the whole part of what is
    /// left, which is less than the distance of 1,024 between the largest doubles that are `Int64`.
    fn key(&self) -> (u64, u16) {
        let (double, whole) = match self {
            Self::Integer(number) => {
                let whole = i128::from(*number);
                let nearest = *number as f64;
                let is_above = nearest as i128 > whole;
                let double = if is_above {
                    nearest.next_down()
                } else {
                    nearest
                };
                (double, Some(whole))
            }
            Self::Double(number) => (*number, None),
            Self::Decimal(number) => (number.floor_double(), number.floor()),
        };
        let beyond = match whole {
            Some(whole) if double.abs() >= EXACT_INTEGERS && double.abs() <= BEYOND_INTEGERS => {
                u16::try_from(whole - double as i128).unwrap_or_default()
            }
            _ => 0,
        };
        (sortable(double), beyond)
    }
}

/// Bits that sort as the numbers do; NaN first, one zero.
fn sortable(number: f64) -> u64 {
    if number.is_nan() {
        return 0;
    }
    // Adding zero makes a negative zero positive.
    let bits = (number + 0.0).to_bits();
    if bits >> 63 == 0 {
        bits | 1 << 63
    } else {
        !bits
    }
}

fn compare_double(number: f64, decimal: &Digits) -> Ordering {
    if number.is_nan() || number == f64::NEG_INFINITY {
        return Ordering::Less;
    }
    if number == f64::INFINITY {
        return Ordering::Greater;
    }
    // No double has more than 767 significant digits, so that this is its exact value.
    Digits::parse(&format!("{number:.766e}")).compare(decimal)
}

/// A finite decimal number, 0.d₁d₂d₃… × 10^exponent, without zeros at either end.
pub(super) struct Digits {
    is_negative: bool,
    digits: Vec<u8>,
    exponent: i64,
    text: String,
}

impl Digits {
    /// Reads `-12.5E+3` and the like.
    fn parse(text: &str) -> Self {
        let unsigned = text.strip_prefix('-');
        let is_negative = unsigned.is_some();
        let unsigned = unsigned.unwrap_or(text);
        let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
        let exponent: i64 = exponent.parse().unwrap_or_default();
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all: Vec<u8> = whole
            .bytes()
            .chain(fraction.bytes())
            .map(|d| d - b'0')
            .collect();
        let leading = all.iter().take_while(|digit| **digit == 0).count();
        let trailing = all.iter().rev().take_while(|digit| **digit == 0).count();
        let digits = all.get(leading..all.len() - trailing).unwrap_or_default();
        Self {
            is_negative: is_negative && !digits.is_empty(),
            digits: digits.to_vec(),
            exponent: exponent + whole.len() as i64 - leading as i64,
            text: text.to_owned(),
        }
    }

    fn compare(&self, other: &Self) -> Ordering {
        let sign = |number: &Self| match (number.digits.is_empty(), number.is_negative) {
            (true, _) => 0,
            (false, false) => 1,
            (false, true) => -1,
        };
        let signs = sign(self).cmp(&sign(other));
        if signs.is_ne() || self.digits.is_empty() {
            return signs;
        }
        let size = self.exponent.cmp(&other.exponent);
        // Digits compare like text: a shorter number continues with zeros.
        let size = size.then_with(|| self.digits.cmp(&other.digits));
        if self.is_negative {
            size.reverse()
        } else {
            size
        }
    }

    /// The largest double that is not larger.
    fn floor_double(&self) -> f64 {
        let nearest: f64 = self.text.parse().unwrap_or_default();
        if compare_double(nearest, self).is_gt() {
            nearest.next_down()
        } else {
            nearest
        }
    }

    /// The largest integer that is not larger, if it has at most 20 digits, as `Int64` and their
    /// neighbours have.
    fn floor(&self) -> Option<i128> {
        if self.exponent > 20 {
            return None;
        }
        let whole_digits = usize::try_from(self.exponent).unwrap_or(0);
        let digits = self.digits.iter().copied().chain(std::iter::repeat(0));
        let whole = digits
            .take(whole_digits)
            .fold(0_i128, |whole, digit| whole * 10 + i128::from(digit));
        let has_fraction = self.digits.len() > whole_digits;
        Some(match self.is_negative {
            true => -whole - i128::from(has_fraction),
            false => whole,
        })
    }
}
