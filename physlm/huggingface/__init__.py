"""Models as Hugging Face's transformers reads and writes them."""
