"""local-llm cost: what answers cost here and hosted."""

import typer

from local_llm.cli import cost_prices
from local_llm.cli.cost_breakeven import breakeven
from local_llm.cli.cost_compare import compare_costs
from local_llm.cli.cost_measure import measure_throughput

app = typer.Typer(no_args_is_help=True, help="What answers cost here and hosted, and from when on here is cheaper.")
app.command("compare")(compare_costs)
app.command("breakeven")(breakeven)
app.command("measure")(measure_throughput)
app.add_typer(cost_prices.app, name="prices")
