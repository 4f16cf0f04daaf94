"""Stock llama.cpp on a GGUF file, for the export that proves itself and for conversations."""
