"""Names that vulture finds no use of, each group with the reason why it stays.

Vulture looks at the package and at what uses it (studies, examples, benchmarks), not at the tests: what only a test
uses is dead. A new entry goes under the reason that holds for it; `make check` fails for a name that is not listed.
"""

# Commands: registered as strings in the command line's table.
run_program
check_command
generate_command
plan_command
demo_command
simulate_command
compare_command
list_command
run_command
report_command
buyer_command
primal_command
dual_command
simulate_fulfilment
optimise_fulfilment
benchmark_fulfilment

# Attributes that the command line's and settings' libraries read.
suppress_keyboard_interrupt
__getattr__
model_config

# Documented for users (README and docs), with no caller of our own.
check_policy
check_query
to_frame
generate
policy_gradient
MemorySource
read_metrics
from_score
from_choice
FromPolicy

# Fields of results that go into records as a whole (`asdict`, `fields`) and are read there by name.
mean_violation
near_limit_mean_violation
near_limit_share
share_weeks_over_10_percent
near_limit_share_over_10_percent
irreducible_violation
avoidable_violation
idle_capacity
complementarity_residual
near_limit_weeks
zero_capacity_weeks
zero_capacity_weeks_used
near_open_weeks
short_open_weeks
over_weeks
near_over_weeks
near_violation
avoidable
regret_ratio
reward_kept_left_out
regret_left_out
aggregate_error
naive_error
ratio_to_naive
product_error
naive_product_error
product_total_error
naive_product_total_error
rolling_error
rolling_naive_error
coverage_80
coverage_90
scored_weeks

# Fields that are read by name (`getattr`, a table of column names) or filled for a user's own code.
fill_rate
scale_error
past_demand
order_weeks
regular_rate
overtime_rate
agency_rate

# Arguments and functions that jax calls or requires.
_surrogate_slope

# to be removed by the redesign
_forecast_note
marginal
initial_state
