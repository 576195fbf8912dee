"""/v1/responses, told as chats: requests in, events and objects out, answers kept for whoever comes back."""
