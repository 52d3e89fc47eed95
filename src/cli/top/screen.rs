//! Screen of `windrow top`: one look at the server, in a terminal of any size.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Gauge, Paragraph, Row, Sparkline, Table};
use serde_json::Value;

use super::super::paint::harmless;
use super::Look;

/// Services in the list of errors.
const MAX_SERVICES: usize = 20;

/// Styles, or none without colours.
#[derive(Clone, Copy)]
struct Theme {
    colours: bool,
}

impl Theme {
    fn colour(self, colour: Color) -> Style {
        if self.colours {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }

    fn dim(self) -> Style {
        if self.colours {
            Style::new().add_modifier(Modifier::DIM)
        } else {
            Style::new()
        }
    }

    fn header(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }
}

/// Draws a look. `trouble`: why it is not the newest.
pub(super) fn draw(frame: &mut Frame<'_>, look: &Look, trouble: Option<&str>, address: &str, colours: bool) {
    let theme = Theme { colours };
    let reasons = reasons(look, trouble);
    let outputs = look.stats["outputs"].as_array().map_or(0, Vec::len);
    let [head, health, charts, fill, table, errors, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(rows(reasons.len())),
        Constraint::Length(6),
        Constraint::Length(3),
        Constraint::Length(rows(outputs) + 3),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(headline(look, address, theme), head);
    let reasons = reasons
        .into_iter()
        .map(|reason| Line::styled(reason, theme.colour(Color::Red)));
    frame.render_widget(Paragraph::new(reasons.collect::<Vec<_>>()), health);
    draw_charts(frame, look, charts, theme);
    draw_fill(frame, look, fill, theme);
    frame.render_widget(output_table(look, theme), table);
    draw_errors(frame, look, errors, theme);
    let keys = "q ends · ack and rates of the last seconds · errors: traces of the last 15 minutes";
    frame.render_widget(Line::styled(keys, theme.dim()), foot);
}

fn rows(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

fn reasons(look: &Look, trouble: Option<&str>) -> Vec<String> {
    let reasons = look.stats.pointer("/readiness/reasons").and_then(Value::as_array);
    let reasons = reasons
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(harmless);
    trouble.map(harmless).into_iter().chain(reasons).collect()
}

fn headline<'a>(look: &Look, address: &'a str, theme: Theme) -> Line<'a> {
    let (word, colour) = if look.is_ready() {
        ("ready", Color::Green)
    } else {
        ("not ready", Color::Red)
    };
    let seconds = look.number("/uptimeSeconds");
    let uptime = match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} days", s / 86_400.0),
    };
    let version = look.stats["version"].as_str().unwrap_or_default();
    Line::from(vec![
        Span::styled(format!("Windrow {} ", harmless(version)), theme.header()),
        Span::styled(format!("● {word}"), theme.colour(colour)),
        Span::raw(format!("  up {uptime}  {address}")),
    ])
}

fn draw_charts(frame: &mut Frame<'_>, look: &Look, area: Rect, theme: Theme) {
    let records = look.number("/now/recordsPerSecond");
    let documents = look.number("/now/documentsPerSecond");
    let (median, p99) = (
        look.latency("/now/ackLatencyMs"),
        look.latency("/now/ackLatencyP99Ms"),
    );
    let charts = [
        (format!("records/s {records:.0}"), "recordsPerSecond", Color::Cyan),
        (
            format!("documents/s {documents:.0}"),
            "documentsPerSecond",
            Color::Green,
        ),
        (format!("ack {median}, p99 {p99}"), "ackLatencyMs", Color::Yellow),
    ];
    let areas = Layout::horizontal([Constraint::Fill(1); 3]).areas::<3>(area);
    for ((title, series, colour), area) in charts.into_iter().zip(areas) {
        let block = Block::bordered().title(title);
        let room = usize::from(block.inner(area).width);
        let values = look.stats["series"][series]
            .as_array()
            .map_or(&[][..], Vec::as_slice);
        let newest = values.iter().skip(values.len().saturating_sub(room));
        // In hundredths, so that latencies below a millisecond are seen.
        let values: Vec<u64> = newest
            .map(|value| (value.as_f64().unwrap_or(0.0) * 100.0) as u64)
            .collect();
        let chart = Sparkline::default()
            .data(values)
            .style(theme.colour(colour))
            .block(block);
        frame.render_widget(chart, area);
    }
}

fn draw_fill(frame: &mut Frame<'_>, look: &Look, area: Rect, theme: Theme) {
    let areas = Layout::horizontal([Constraint::Fill(1); 3]).areas::<3>(area);
    let [journal, memory, gathering] = areas;
    for (title, share, area) in [
        ("journal", look.journal(), journal),
        ("memory budget", look.memory(), memory),
    ] {
        let colour = match share {
            share if share > 0.9 => Color::Red,
            share if share > 0.6 => Color::Yellow,
            _ => Color::Green,
        };
        let gauge = Gauge::default()
            .ratio(share)
            .label(format!("{:.1} %", share * 100.0))
            .gauge_style(theme.colour(colour))
            .block(Block::bordered().title(title));
        frame.render_widget(gauge, area);
    }
    let text = format!(
        "{:.0} open · dead letter {:.0} · audit {:.0}",
        look.number("/open/traces"),
        look.number("/deadLetter/documents"),
        look.number("/audit/difference"),
    );
    frame.render_widget(
        Paragraph::new(text).block(Block::bordered().title("traces")),
        gathering,
    );
}

fn output_table(look: &Look, theme: Theme) -> Table<'static> {
    let outputs = look.stats["outputs"].as_array().map_or(&[][..], Vec::as_slice);
    let rows = outputs.iter().map(|output| {
        let number = |name: &str| output[name].as_u64().unwrap_or(0).to_string();
        let errors = output["errors"].as_object();
        let errors: Vec<_> = errors
            .into_iter()
            .flatten()
            .map(|(why, count)| format!("{count} {why}"))
            .collect();
        let failing = if errors.is_empty() {
            Cell::from("-")
        } else {
            Cell::from(errors.join(", ")).style(theme.colour(Color::Red))
        };
        Row::new([
            Cell::from(harmless(output["name"].as_str().unwrap_or_default())),
            Cell::from(number("created")),
            Cell::from(number("merged")),
            Cell::from(number("unchanged")),
            Cell::from(number("rejected")),
            Cell::from(number("inFlight")),
            failing,
        ])
    });
    let widths = [
        Constraint::Length(14),
        Constraint::Length(12),
        Constraint::Length(10),
        Constraint::Length(10),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Fill(1),
    ];
    let header = [
        "output",
        "created",
        "merged",
        "unchanged",
        "rejected",
        "in flight",
        "errors",
    ];
    Table::new(rows, widths)
        .header(Row::new(header).style(theme.header()))
        .block(Block::bordered().title("outputs"))
}

fn draw_errors(frame: &mut Frame<'_>, look: &Look, area: Rect, theme: Theme) {
    let block = Block::bordered().title("services by errors");
    let Some(errors) = &look.errors else {
        let text = "no output can be searched";
        return frame.render_widget(Paragraph::new(text).style(theme.dim()).block(block), area);
    };
    if errors.is_empty() {
        return frame.render_widget(Paragraph::new("none").style(theme.dim()).block(block), area);
    }
    let most = errors.iter().map(|(_, count)| *count).max().unwrap_or(1).max(1);
    let room = usize::from(block.inner(area).width).saturating_sub(40);
    let rows = errors.iter().take(MAX_SERVICES).map(|(name, count)| {
        let length = (*count as f64 / most as f64 * room as f64).ceil() as usize;
        Row::new([
            Cell::from(name.clone()),
            Cell::from(Line::from(count.to_string()).right_aligned()),
            Cell::from("█".repeat(length)).style(theme.colour(Color::Red)),
        ])
    });
    let widths = [
        Constraint::Length(26),
        Constraint::Length(10),
        Constraint::Fill(1),
    ];
    frame.render_widget(Table::new(rows, widths).block(block), area);
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;

    use super::*;

    fn look() -> Look {
        let stats = json!({
            "version": "0.1.0", "uptimeSeconds": 7300,
            "readiness": { "ready": false, "reasons": ["the store\u{1b}[2J is down"], "notes": [] },
            "now": { "recordsPerSecond": 48_210.4, "documentsPerSecond": 9642.0, "ackLatencyMs": 2.14 },
            "journal": { "bytes": 25, "limitBytes": 100 },
            "memory": { "usedBytes": 1, "limitBytes": 0 },
            "open": { "traces": 712 },
            "outputs": [{ "name": "sqlite", "created": 4711, "errors": { "timeout": 3 } }],
            "series": { "recordsPerSecond": [0.0, 10.0, 48_210.0], "ackLatencyMs": [null, 2.1] },
        });
        let errors = Some(vec![("order".to_owned(), 12), ("payment".to_owned(), 3)]);
        Look { stats, errors }
    }

    fn shown(look: &Look, width: u16, height: u16, colours: bool) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal
            .draw(|frame| draw(frame, look, Some("no answer"), "http://127.0.0.1:2020", colours))
            .unwrap();
        let backend = terminal.backend();
        if !colours {
            let styled = backend
                .buffer()
                .content
                .iter()
                .any(|cell| cell.fg != Color::Reset);
            assert!(!styled, "no colours were asked for");
        }
        backend.to_string()
    }

    #[test]
    fn a_look_shows_what_matters() {
        let screen = shown(&look(), 110, 30, false);
        for text in [
            "not ready",
            "no answer",
            "the store",
            "records/s 48210",
            "ack 2.1 ms, p99 -",
            "25.0 %",
            "712 open",
            "sqlite",
            "4711",
            "3 timeout",
            "order",
            "12",
            "payment",
        ] {
            assert!(screen.contains(text), "{text}\n{screen}");
        }
        assert!(!screen.contains('\u{1b}'));
    }

    #[test]
    fn any_size_and_any_answer_can_be_drawn() {
        for (width, height) in [(1, 1), (20, 5), (40, 10), (300, 100)] {
            shown(&look(), width, height, true);
            shown(&Look::default(), width, height, true);
        }
    }
}
