//! Suggestions for misspelt names: "did you mean ...?".

/// The lowest Jaro-Winkler similarity, from 0 to 1, at which a name is suggested.
const MIN_SIMILARITY: f64 = 0.8;

/// `, did you mean "x"?` when one of the known names is similar; empty otherwise.
pub(super) fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let near = known
        .into_iter()
        .map(|other| (strsim::jaro_winkler(name, other), other))
        .filter(|(score, _)| *score > MIN_SIMILARITY)
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    near.map_or_else(String::new, |(_, other)| format!(", did you mean {other:?}?"))
}
