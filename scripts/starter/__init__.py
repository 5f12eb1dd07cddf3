"""How the built-in starter model is made: tokenizer, demonstrations, training and measurement."""
