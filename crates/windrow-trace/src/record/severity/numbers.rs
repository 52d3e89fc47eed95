//! Levels as numbers: what they mean in which field.

use super::Severity;

/// What a number means as a level. Loggers disagree, so the name of the field decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NumberScheme {
    /// 0 to 7 as in syslog and GELF; 10 to 60 as in bunyan and pino; from 100 on as in Monolog.
    Level,
    /// 0 to 7 as in syslog; 10 to 60 as in bunyan; from 100 on as in Google Cloud Logging.
    Severity,
    /// 0 (emergency) to 7 (debug): RFC 5424, journald.
    Syslog,
    /// Facility and severity of a syslog message in one number: RFC 5424.
    SyslogPriority,
    /// 1 (trace) to 24 (fatal): `OpenTelemetry`.
    Otlp,
    /// 10 (debug) to 50 (critical): Python's `logging`.
    Python,
    /// 5000 (trace) to 40000 (error): Logback.
    Logback,
    /// 0 (trace) to 5 (critical): `Microsoft.Extensions.Logging`.
    DotNet,
    /// 0 (verbose) to 4 (critical): Azure Application Insights.
    Azure,
}

impl NumberScheme {
    /// The scheme of numbers in a field of this name or path.
    pub(crate) fn of(name: &str) -> Self {
        match name {
            "PRIORITY"
            | "syslog_severity"
            | "syslog.severity"
            | "syslogseverity"
            | "log.syslog.severity.code" => Self::Syslog,
            "pri" | "syslog_pri" | "log.syslog.priority" => Self::SyslogPriority,
            "severity_number" | "severityNumber" | "SeverityNumber" => Self::Otlp,
            "levelno" | "record.level.no" => Self::Python,
            "level_value" => Self::Logback,
            "LogLevel" => Self::DotNet,
            "SeverityLevel" | "severityLevel" => Self::Azure,
            "severity" | "Severity" => Self::Severity,
            _ => Self::Level,
        }
    }

    /// The severity of `number`, if it is one of the scheme.
    pub(super) fn severity(self, number: i64) -> Option<Severity> {
        match self {
            Self::Level => match number {
                0..=7 => syslog(number),
                10..100 => bunyan(number),
                100..1000 => monolog(number),
                _ => logback(number),
            },
            Self::Severity => match number {
                0..=7 => syslog(number),
                10..100 => bunyan(number),
                _ => google(number),
            },
            Self::Syslog => syslog(number),
            Self::SyslogPriority => match number {
                0..192 => syslog(number & 7),
                _ => None,
            },
            Self::Otlp => otlp(number),
            Self::Python => python(number),
            Self::Logback => logback(number),
            Self::DotNet => dot_net(number),
            Self::Azure => azure(number),
        }
    }
}

fn syslog(number: i64) -> Option<Severity> {
    Some(match number {
        0..=2 => Severity::Fatal,
        3 => Severity::Error,
        4 => Severity::Warn,
        5 | 6 => Severity::Info,
        7 => Severity::Debug,
        _ => return None,
    })
}

fn bunyan(number: i64) -> Option<Severity> {
    Some(match number {
        10..20 => Severity::Trace,
        20..30 => Severity::Debug,
        30..40 => Severity::Info,
        40..50 => Severity::Warn,
        50..60 => Severity::Error,
        60..100 => Severity::Fatal,
        _ => return None,
    })
}

fn monolog(number: i64) -> Option<Severity> {
    Some(match number {
        100..200 => Severity::Debug,
        200..300 => Severity::Info,
        300..400 => Severity::Warn,
        400..500 => Severity::Error,
        500..1000 => Severity::Fatal,
        _ => return None,
    })
}

fn google(number: i64) -> Option<Severity> {
    Some(match number {
        100..200 => Severity::Debug,
        200..400 => Severity::Info,
        400..500 => Severity::Warn,
        500..600 => Severity::Error,
        600..=800 => Severity::Fatal,
        _ => return None,
    })
}

fn logback(number: i64) -> Option<Severity> {
    Some(match number {
        5_000..10_000 => Severity::Trace,
        10_000..20_000 => Severity::Debug,
        20_000..30_000 => Severity::Info,
        30_000..40_000 => Severity::Warn,
        40_000..50_000 => Severity::Error,
        50_000..=60_000 => Severity::Fatal,
        _ => return None,
    })
}

fn otlp(number: i64) -> Option<Severity> {
    Some(match number {
        1..=4 => Severity::Trace,
        5..=8 => Severity::Debug,
        9..=12 => Severity::Info,
        13..=16 => Severity::Warn,
        17..=20 => Severity::Error,
        21..=24 => Severity::Fatal,
        _ => return None,
    })
}

fn python(number: i64) -> Option<Severity> {
    Some(match number {
        1..10 => Severity::Trace,
        10..20 => Severity::Debug,
        20..30 => Severity::Info,
        30..40 => Severity::Warn,
        40..50 => Severity::Error,
        50..100 => Severity::Fatal,
        _ => return None,
    })
}

fn dot_net(number: i64) -> Option<Severity> {
    Some(match number {
        0 => Severity::Trace,
        1 => Severity::Debug,
        2 => Severity::Info,
        3 => Severity::Warn,
        4 => Severity::Error,
        5 => Severity::Fatal,
        _ => return None,
    })
}

fn azure(number: i64) -> Option<Severity> {
    Some(match number {
        0 => Severity::Trace,
        1 => Severity::Info,
        2 => Severity::Warn,
        3 => Severity::Error,
        4 => Severity::Fatal,
        _ => return None,
    })
}
