"""The Quantizer: TFLite variants of a trained model, each measured on the exam rows and gated by what it loses."""
