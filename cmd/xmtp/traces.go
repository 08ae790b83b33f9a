package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// traceFlush bounds how long the last traces may take at the end.
const traceFlush = 3 * time.Second

// A collectorURL is a flag: where traces are sent, "" for nowhere.
type collectorURL string

func (c *collectorURL) Type() string { return "URL" }

func (c *collectorURL) String() string {
	if *c == "" {
		return "off"
	}
	return string(*c)
}

func (c *collectorURL) Set(text string) error {
	if text == "off" {
		text = ""
	}
	if text != "" {
		u, err := url.Parse(text)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return errors.New("must be the URL of a collector, such as http://127.0.0.1:4317, or off")
		}
	}
	*c = collectorURL(text)
	return nil
}

// startTraces sends traces by OTLP over gRPC until stop is called. Which of them,
// is told by OpenTelemetry's own variables, such as OTEL_TRACES_SAMPLER.
func startTraces(collector string, logger *slog.Logger) (provider *sdktrace.TracerProvider, stop func(), err error) {
	exporter, err := otlptracegrpc.New(context.Background(), otlptracegrpc.WithEndpointURL(collector))
	if err != nil {
		return nil, nil, fmt.Errorf("traces: %w", err)
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { logger.Warn("sending traces", "error", err) }))
	provider = sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter),
		sdktrace.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "xmtp-node"),
			attribute.String("service.version", version()),
		)),
	)
	stop = func() {
		ctx, cancel := context.WithTimeout(context.Background(), traceFlush)
		defer cancel()
		if err := provider.Shutdown(ctx); err != nil {
			logger.Warn("sending the last traces", "error", err)
		}
	}
	return provider, stop, nil
}
