"""/v1/responses, told as chats: requests in, its events and objects out, and answers kept for whoever comes back."""
