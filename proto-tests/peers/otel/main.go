// Runs the OpenTelemetry Collector's fluentforward receiver by itself, as a peer of the conformance
// suite.
//
// It uses the published receiver and appends each log record that it emits to a file as one JSON
// line: {"date": "seconds.nanoseconds", "tag": ..., "log": body, ...attributes}. No other part of
// the collector is involved, so the cases test the receiver: framing, decoding and acks.
//
//	go run . 127.0.0.1:24224 out.ndjson
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/open-telemetry/opentelemetry-collector-contrib/receiver/fluentforwardreceiver"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/receiver/receivertest"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: otel HOST:PORT FILE")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(address, path string) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer file.Close()
	var lock sync.Mutex
	sink, err := consumer.NewLogs(func(_ context.Context, logs plog.Logs) error {
		lock.Lock()
		defer lock.Unlock()
		return write(file, logs)
	})
	if err != nil {
		return err
	}
	factory := fluentforwardreceiver.NewFactory()
	config := factory.CreateDefaultConfig()
	config.(*fluentforwardreceiver.Config).ListenAddress = address
	settings := receivertest.NewNopSettings(component.MustNewType("fluentforward"))
	receiver, err := factory.CreateLogs(context.Background(), settings, config, sink)
	if err != nil {
		return err
	}
	if err := receiver.Start(context.Background(), componenttest.NewNopHost()); err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	<-stop
	return receiver.Shutdown(context.Background())
}

func write(file *os.File, logs plog.Logs) error {
	for i := range logs.ResourceLogs().Len() {
		scopes := logs.ResourceLogs().At(i).ScopeLogs()
		for j := range scopes.Len() {
			records := scopes.At(j).LogRecords()
			for k := range records.Len() {
				record := records.At(k)
				line := record.Attributes().AsRaw()
				if body := record.Body(); body.AsString() != "" {
					line["log"] = body.AsRaw()
				}
				nanos := record.Timestamp().AsTime()
				line["date"] = fmt.Sprintf("%d.%09d", nanos.Unix(), nanos.Nanosecond())
				bytes, err := json.Marshal(line)
				if err != nil {
					bytes = fmt.Appendf(nil, `{"unprintable":%q}`, fmt.Sprint(line))
				}
				if _, err := file.Write(append(bytes, '\n')); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
