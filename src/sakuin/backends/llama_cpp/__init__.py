"""The backend of llama.cpp: GGUF weights through an unchanged library, attention and memory by sakuin."""
