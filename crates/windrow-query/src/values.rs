//! Levels, numbers and durations as queries and documents write them.

/// Severity of a line or document, in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Level {
    /// Finest detail.
    Trace = 0,
    /// For developers.
    Debug = 1,
    /// Normal operation.
    Info = 2,
    /// Unexpected, but handled.
    Warn = 3,
    /// An operation failed.
    Error = 4,
    /// The program cannot go on.
    Fatal = 5,
}

impl Level {
    /// All levels, in ascending order.
    pub const ALL: [Self; 6] = [
        Self::Trace,
        Self::Debug,
        Self::Info,
        Self::Warn,
        Self::Error,
        Self::Fatal,
    ];

    /// Its name in documents.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Fatal => "fatal",
        }
    }

    /// The level of a name in a document.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == name)
    }

    /// The level of a word in a query: names and usual abbreviations, in any case.
    pub(crate) fn of_word(word: &str) -> Option<Self> {
        Some(match word.to_ascii_lowercase().as_str() {
            "trace" => Self::Trace,
            "debug" => Self::Debug,
            "info" | "information" | "notice" => Self::Info,
            "warn" | "warning" => Self::Warn,
            "error" | "err" => Self::Error,
            "fatal" | "critical" | "crit" | "emergency" | "emerg" | "alert" | "panic" => Self::Fatal,
            _ => return None,
        })
    }
}

/// A set of levels and of "no level".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LevelSet(u8);

impl LevelSet {
    const NONE: u8 = 1 << 6;

    pub(crate) fn none() -> Self {
        Self(Self::NONE)
    }

    pub(crate) fn of(levels: impl Iterator<Item = Level>) -> Self {
        Self(levels.fold(0, |set, level| set | 1 << level as u8))
    }

    pub(crate) fn contains(self, level: Option<Level>) -> bool {
        self.0 & level.map_or(Self::NONE, |level| 1 << level as u8) != 0
    }

    pub(crate) fn levels(self) -> impl Iterator<Item = Level> {
        Level::ALL
            .into_iter()
            .filter(move |level| self.contains(Some(*level)))
    }
}

/// Milliseconds of a duration such as `1s`, `250ms`, `1.5m`, `2h`, `1d`; a bare number is ms.
#[must_use]
pub fn parse_duration_ms(text: &str) -> Option<f64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    let factor = match unit {
        "" | "ms" => 1.0,
        "us" | "µs" => 0.001,
        "s" => 1_000.0,
        "m" | "min" => 60_000.0,
        "h" => 3_600_000.0,
        "d" => 86_400_000.0,
        _ => return None,
    };
    Some(parse_number(number)? * factor)
}

/// A finite decimal number.
pub(crate) fn parse_number(text: &str) -> Option<f64> {
    let plausible = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
    text.parse::<f64>()
        .ok()
        .filter(|number| plausible && number.is_finite())
}
