"""Projects, keys, usage and the audit log as the organization API has them."""
