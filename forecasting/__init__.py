"""Who is asked for an opinion: language models, and what keeps them honest and replayable."""
