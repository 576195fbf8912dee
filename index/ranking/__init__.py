"""What happens between passages found and passages returned, and what each part of it is worth."""
