//! Whose files a node fetches by itself: the setting `attachments`.

use std::{fmt, str::FromStr};

/// Bytes up to which files are fetched where the settings say nothing: photos, scans and short
/// recordings, not films. A guess.
const SIZE_MAX_DEFAULT: u64 = 64_000_000;

const SIZES: [(&str, u64); 4] = [("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000), ("B", 1)];

/// Up to which size the files of some records are fetched: `all`, `none`, `photo:20MB`, `*:1MB`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    text: String,
    /// The form, or what it begins with.
    form: String,
    is_prefix: bool,
    size_max: u64,
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let takes = "give all, none, or FORM:SIZE, as photo:20MB or *:1MB; units are B, kB, MB, GB";
        let rule = |form: &str, is_prefix, size_max| Self {
            text: text.to_owned(),
            form: form.to_owned(),
            is_prefix,
            size_max,
        };
        match text {
            "all" => return Ok(rule("", true, u64::MAX)),
            "none" => return Ok(rule("", true, 0)),
            _ => {}
        }
        let (form, size) = text.rsplit_once(':').ok_or(takes)?;
        let (unit, scale) = SIZES.iter().find(|(unit, _)| size.ends_with(unit)).ok_or(takes)?;
        let number: u64 = size[..size.len() - unit.len()].parse().map_err(|_| takes)?;
        let size_max = number.checked_mul(*scale).ok_or(takes)?;
        Ok(match form.strip_suffix('*') {
            Some(prefix) => rule(prefix, true, size_max),
            None => rule(form, false, size_max),
        })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Rule {
    /// No file is fetched unasked.
    pub(crate) fn none() -> Self {
        "none".parse().expect("one of the words above")
    }

    fn is_of(&self, form: &str) -> bool {
        if self.is_prefix { form.starts_with(&self.form) } else { form == self.form }
    }
}

/// Whether a file of `size` bytes of a record of `form` is fetched unasked. The first rule of that form
/// decides; where there are rules and none is of it, it isn't.
pub fn takes(rules: &[Rule], form: Option<&str>, size: u64) -> bool {
    if rules.is_empty() {
        return size <= SIZE_MAX_DEFAULT;
    }
    let rule = rules.iter().find(|rule| rule.is_of(form.unwrap_or_default()));
    rule.is_some_and(|rule| rule.size_max > 0 && size <= rule.size_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(texts: &[&str]) -> Vec<Rule> {
        texts.iter().map(|text| text.parse().expect("a rule")).collect()
    }

    #[test]
    fn the_first_rule_of_a_form_decides() {
        let rules = rules(&["photo:20MB", "photo*:1kB", "a:b:2B", "*:5MB"]);
        assert!(takes(&rules, Some("photo"), 20_000_000));
        assert!(!takes(&rules, Some("photo"), 20_000_001));
        assert!(!takes(&rules, Some("photo-small"), 2_000));
        assert!(takes(&rules, Some("a:b"), 2) && !takes(&rules, Some("a:b"), 3));
        assert!(takes(&rules, None, 5_000_000) && !takes(&rules, None, 5_000_001));
    }

    #[test]
    fn all_none_and_nothing_said() {
        assert!(takes(&rules(&["all"]), Some("x"), u64::MAX));
        assert!(!takes(&rules(&["none"]), Some("x"), 0));
        assert!(takes(&[], None, SIZE_MAX_DEFAULT) && !takes(&[], None, SIZE_MAX_DEFAULT + 1));
        assert!(!takes(&rules(&["photo:1GB"]), Some("other"), 1));
    }

    #[test]
    fn what_is_no_rule_is_told_what_one_is() {
        for text in
            ["", "photo", "photo:", "photo:MB", "photo:1TB", "photo:-1MB", "x:99999999999GB"]
        {
            assert!(text.parse::<Rule>().expect_err(text).contains("FORM:SIZE"), "{text}");
        }
    }
}
