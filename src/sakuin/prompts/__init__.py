"""From text to tokens and back: chat templates, and which token stands for which characters."""
