// Sends log records with the OpenTelemetry Collector's otlphttp or otlp exporter by itself, as a
// peer of Windrow's tests: its queue, its retries and its encoding, but no other part.
//
// Reads records as a JSON array on standard input. Each has "_time" in Unix seconds; its other
// fields become the body.
//
//	collector (otlphttp|otlp) ENDPOINT ENCODING
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/exporter/exportertest"
	"go.opentelemetry.io/collector/exporter/otlpexporter"
	"go.opentelemetry.io/collector/exporter/otlphttpexporter"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
)

func main() {
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(kind, endpoint, encoding string) error {
	var records []map[string]any
	decoder := json.NewDecoder(os.Stdin)
	decoder.UseNumber()
	if err := decoder.Decode(&records); err != nil {
		return err
	}
	var factory exporter.Factory
	options := map[string]any{"endpoint": endpoint}
	if kind == "otlp" {
		factory = otlpexporter.NewFactory()
		options["tls"] = map[string]any{"insecure": true}
	} else {
		factory = otlphttpexporter.NewFactory()
		options["encoding"] = encoding
	}
	config := factory.CreateDefaultConfig()
	if err := confmap.NewFromStringMap(options).Unmarshal(config); err != nil {
		return err
	}
	settings := exportertest.NewNopSettings(factory.Type())
	logs, err := factory.CreateLogs(context.Background(), settings, config)
	if err != nil {
		return err
	}
	if err := logs.Start(context.Background(), componenttest.NewNopHost()); err != nil {
		return err
	}
	for begin := 0; begin < len(records); begin += 100 {
		batch := plog.NewLogs()
		resource := batch.ResourceLogs().AppendEmpty()
		resource.Resource().Attributes().PutStr("service.name", "orders")
		scope := resource.ScopeLogs().AppendEmpty()
		scope.Scope().SetName("collector")
		for _, record := range records[begin:min(begin+100, len(records))] {
			line := scope.LogRecords().AppendEmpty()
			at, err := record["_time"].(json.Number).Float64()
			if err != nil {
				return err
			}
			delete(record, "_time")
			line.SetTimestamp(pcommon.NewTimestampFromTime(time.UnixMicro(int64(at * 1e6))))
			if err := line.Body().SetEmptyMap().FromRaw(numbers(record).(map[string]any)); err != nil {
				return err
			}
		}
		if err := logs.ConsumeLogs(context.Background(), batch); err != nil {
			return err
		}
	}
	// Waits until the queue is empty.
	return logs.Shutdown(context.Background())
}

// Whole numbers stay whole.
func numbers(value any) any {
	switch value := value.(type) {
	case json.Number:
		if whole, err := value.Int64(); err == nil {
			return whole
		}
		number, _ := value.Float64()
		return number
	case map[string]any:
		for key, inner := range value {
			value[key] = numbers(inner)
		}
	case []any:
		for index, inner := range value {
			value[index] = numbers(inner)
		}
	}
	return value
}
