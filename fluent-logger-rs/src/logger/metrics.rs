//! Statistics of the logger for the `metrics` facade (feature `metrics`).

use metrics::{counter, gauge};

use super::Logger;

impl Logger {
    /// Publishes [`stats`](Self::stats) through the `metrics` facade: call it once in a while, or
    /// before the exporter is scraped. Counters have the prefix `fluent_logger_` and the suffix
    /// `_total`.
    ///
    /// ```no_run
    /// # async fn example(logger: fluent_logger::Logger) {
    /// loop {
    ///     logger.publish_metrics();
    ///     tokio::time::sleep(std::time::Duration::from_secs(10)).await;
    /// }
    /// # }
    /// ```
    pub fn publish_metrics(&self) {
        let stats = self.stats();
        counter!("fluent_logger_events_accepted_total").absolute(stats.accepted);
        counter!("fluent_logger_events_rejected_total").absolute(stats.rejected);
        counter!("fluent_logger_events_delivered_total").absolute(stats.delivered);
        counter!("fluent_logger_events_dropped_total").absolute(stats.dropped);
        counter!("fluent_logger_events_given_up_total").absolute(stats.given_up);
        counter!("fluent_logger_events_sampled_out_total").absolute(stats.sampled_out);
        counter!("fluent_logger_events_suppressed_total").absolute(stats.suppressed);
        counter!("fluent_logger_chunks_delivered_total").absolute(stats.chunks);
        counter!("fluent_logger_chunks_resent_total").absolute(stats.resent);
        counter!("fluent_logger_connections_total").absolute(stats.connections);
        counter!("fluent_logger_connect_failures_total").absolute(stats.connect_failures);
        counter!("fluent_logger_connection_losses_total").absolute(stats.connection_losses);
        counter!("fluent_logger_spool_failures_total").absolute(stats.spool_failures);
        // Exact up to 2^53, far above what memory holds.
        gauge!("fluent_logger_buffered_events").set(stats.buffered_events as f64);
        gauge!("fluent_logger_buffered_bytes").set(stats.buffered_bytes as f64);
        gauge!("fluent_logger_in_flight_chunks").set(stats.in_flight as f64);
        gauge!("fluent_logger_spooled_chunks").set(stats.spooled_chunks as f64);
        gauge!("fluent_logger_connected").set(f64::from(u8::from(stats.connected)));
    }
}
