//! Sizes as people write them: `256M`, `1G`, `512KB`.

/// A size that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{value}' {reason}")]
pub struct SizeError {
    value: String,
    reason: String,
}

/// Bytes of a size with a unit (B, K, M, G, T, with or without a final B, any case).
///
/// # Errors
/// No unit, an unknown one, a fraction, or more than fits.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, SizeError> {
    let fail = |reason: &str| SizeError { value: text.to_owned(), reason: format!("is not a size: {reason}") };
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(digits);
    if number.is_empty() {
        return Err(fail("it must begin with a whole number"));
    }
    let factor: u64 = match unit.trim().to_ascii_uppercase().as_str() {
        // The number is what is wrong with it, not the unit.
        "" if number.chars().all(|digit| digit == '0') => 1,
        "" => {
            let reason = format!("has no unit: write {number}M or {number}G");
            return Err(SizeError { value: text.to_owned(), reason });
        }
        "B" => 1,
        "K" | "KB" => 1 << 10,
        "M" | "MB" => 1 << 20,
        "G" | "GB" => 1 << 30,
        "T" | "TB" => 1 << 40,
        other if other.starts_with('.') => return Err(fail("only whole numbers are possible")),
        _ => return Err(fail("the unit must be B, K, M, G or T")),
    };
    number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).ok_or_else(|| fail("it is too large"))
}

/// Whole mebibytes, at least `least`.
///
/// # Errors
/// As [`parse_bytes`], and less than that.
pub(crate) fn parse_mib(text: &str, least: u64) -> Result<u64, SizeError> {
    match parse_bytes(text)? >> 20 {
        mib if mib < least => {
            Err(SizeError { value: text.to_owned(), reason: format!("is too small: it must be at least {least}M") })
        }
        mib => Ok(mib),
    }
}

/// A number of bytes for people: `1.5G`, `256M`, `12K`.
pub(crate) fn human(bytes: u64) -> String {
    for (shift, unit) in [(40, 'T'), (30, 'G'), (20, 'M'), (10, 'K')] {
        if bytes >= 1 << shift {
            let value = bytes as f64 / (1u64 << shift) as f64;
            return if value.fract() < 0.05 { format!("{value:.0}{unit}") } else { format!("{value:.1}{unit}") };
        }
    }
    format!("{bytes}B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_all_spellings() {
        for (text, mib) in [("256M", 256), ("1g", 1024), ("2 GB", 2048), ("1T", 1 << 20), ("2048K", 2), ("1048576B", 1)]
        {
            assert_eq!(parse_mib(text, 1), Ok(mib), "{text}");
        }
    }

    #[test]
    fn wrong_sizes_name_the_value_and_the_reason() {
        for (text, part) in [
            ("512Q", "unit must be"),
            ("512", "has no unit: write 512M"),
            ("0", "at least 4M"),
            ("M", "begin with a whole number"),
            ("-1M", "begin with a whole number"),
            ("1.5G", "whole numbers"),
            ("99999999999999T", "too large"),
            ("10K", "at least 4M"),
            ("3M", "at least 4M"),
            ("", "begin with"),
        ] {
            let message = parse_mib(text, 4).expect_err(text).to_string();
            assert!(message.contains(part) && message.contains(&format!("'{text}'")), "{text}: {message}");
        }
    }

    #[test]
    fn bytes_are_short_for_people() {
        assert_eq!(human(0), "0B");
        assert_eq!(human(1536), "1.5K");
        assert_eq!(human(256 << 20), "256M");
        assert_eq!(human(3 << 30), "3G");
    }
}
