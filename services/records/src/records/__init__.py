"""The records service: WAV in, MP3 link out."""
