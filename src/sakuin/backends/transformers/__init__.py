"""Models through Hugging Face transformers."""
