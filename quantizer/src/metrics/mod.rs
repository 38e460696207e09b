//! How good a quantized model is: signal-to-quantization-noise ratio, agreement, task metrics.
