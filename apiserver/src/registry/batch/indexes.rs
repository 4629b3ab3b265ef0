//! Indexes of pods in text: numbers and intervals of them that grow, as in `0,2-4,7` (batch `validateIndexesFormat`).
//!
//! Texts may be long and intervals wide: they are walked over, never written out.

/// The first and the last index of a part of the text.
type Interval = (i64, i64);

/// How many indexes the text names, all of them below the number of completions.
pub fn count(text: &str, completions: i64) -> Result<i64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    let (mut total, mut last) = (0, None);
    for part in text.split(',') {
        let (start, end) = interval(part, completions)?;
        if let Some(last) = last.filter(|last| *last >= start) {
            return Err(not_increasing(last, start));
        }
        total += end - start + 1;
        last = Some(end);
    }
    Ok(total)
}

/// An index that two texts name; what cannot be read of them is passed over (`validateFailedIndexesNotOverlapCompleted`).
pub fn overlap(a: &str, b: &str, completions: i64) -> Option<i64> {
    let mut left = a.split(',').filter_map(|part| interval(part, completions).ok());
    let mut right = b.split(',').filter_map(|part| interval(part, completions).ok());
    let (mut one, mut other) = (left.next()?, right.next()?);
    loop {
        if one.0 <= other.1 && other.0 <= one.1 {
            return Some(one.0.max(other.0));
        }
        if one.0 <= other.0 {
            one = left.next()?;
        } else {
            other = right.next()?;
        }
    }
}

fn interval(part: &str, completions: i64) -> Result<Interval, String> {
    let Some((start, end)) = part.split_once('-') else {
        let index = index(part, completions)?;
        return Ok((index, index));
    };
    if end.contains('-') {
        return Err(format!(
            "the fragment {part:?} violates the requirement that an index interval can have at most two parts separated by '-'"
        ));
    }
    let (start, end) = (index(start, completions)?, index(end, completions)?);
    if start >= end {
        return Err(not_increasing(start, end));
    }
    Ok((start, end))
}

fn index(text: &str, completions: i64) -> Result<i64, String> {
    match text.parse() {
        Err(_) => Err(format!("cannot convert string to integer for index: {text:?}")),
        Ok(index) if index >= completions => Err(format!("too large index: {text:?}")),
        Ok(index) => Ok(index),
    }
}

fn not_increasing(previous: i64, current: i64) -> String {
    format!("non-increasing order, previous: {previous}, current: {current}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_counted() {
        for (text, wanted) in [("", 0), ("0", 1), ("0,2-4,7", 5), ("0-9", 10), ("+3", 1)] {
            assert_eq!(count(text, 10), Ok(wanted), "{text}");
        }
        let wide = format!("0-{}", i64::from(i32::MAX) - 1);
        assert_eq!(count(&wide, i64::from(i32::MAX)), Ok(i64::from(i32::MAX)));
    }

    #[test]
    fn what_names_no_indexes_is_told_where_it_goes_wrong() {
        for (text, wanted) in [
            (
                "0,1-2-3",
                "the fragment \"1-2-3\" violates the requirement that an index interval can have at most two parts separated by '-'",
            ),
            ("a", "cannot convert string to integer for index: \"a\""),
            ("1,", "cannot convert string to integer for index: \"\""),
            ("-1", "cannot convert string to integer for index: \"\""),
            ("1-b", "cannot convert string to integer for index: \"b\""),
            ("99999999999999999999", "cannot convert string to integer for index: \"99999999999999999999\""),
            ("10", "too large index: \"10\""),
            ("1-10", "too large index: \"10\""),
            ("3-3", "non-increasing order, previous: 3, current: 3"),
            ("0-4,4", "non-increasing order, previous: 4, current: 4"),
            ("5,1", "non-increasing order, previous: 5, current: 1"),
        ] {
            assert_eq!(count(text, 10), Err(wanted.to_owned()), "{text}");
        }
    }

    #[test]
    fn an_index_of_two_texts_is_found() {
        for (a, b, wanted) in [
            ("", "0", None),
            ("0", "", None),
            ("0-2,6", "3-5,7", None),
            ("0-2,6", "1", Some(1)),
            ("0,2,4,6", "1,3,5-8", Some(6)),
            ("x,4", "2,y,4-5", Some(4)),
            ("5-6", "0,1,6-7", Some(6)),
        ] {
            assert_eq!(overlap(a, b, 10), wanted, "{a} {b}");
        }
    }
}
