"""Units that the formulas share."""

SECONDS_PER_HOUR = 3600
TOKENS_PER_MILLION = 1_000_000
# A twelfth of 365 days: 730 hours.
HOURS_PER_MONTH = 365 * 24 / 12
HOURS_PER_YEAR = 365 * 24
WATTS_PER_KILOWATT = 1000
