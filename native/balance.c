/* balance.c - which endpoints of an upstream a connection tries, and in which order
 *
 * Theory of operation: the endpoint whose turn it is comes first: by the upstream's schedule, in which each
 * stands as often as its weight says (routes_compile.c), or by chance. Its neighbours follow, for the case
 * that it refuses at once. Turns are counted per agent, and begin anew with each route table.
 * Limits: MFD_ENDPOINTS_MAX. */
#include "meshfd.h"

static uint32_t next_random(uint32_t *state)
{
    uint32_t x = *state; /* xorshift32, Marsaglia 2003 */

    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return *state = x;
}

/* mfd_balance_choose - the endpoint whose turn it is, then its neighbours, without those of weight 0
 * @upstream: index in the agent's route table */
void mfd_balance_choose(struct mfd_agent *agent, uint32_t upstream, struct mfd_candidates *ret)
{
    const struct mfd_table *table = agent->table;
    const struct mfd_table_upstream *of = mfd_table_upstream(table, upstream);
    uint32_t turn =
        of->balance == MFD_RANDOM ? next_random(&agent->random) : agent->cursors[upstream];
    uint32_t first = mfd_table_schedule(table, of)[turn % of->n_schedule];

    ret->n = 0;
    ret->cursor = &agent->cursors[upstream];
    for (uint32_t i = 0; i < of->n_endpoints && ret->n < MFD_ENDPOINTS_MAX; i++) {
        uint32_t at = of->first_endpoint + (first + i) % of->n_endpoints;
        const struct mfd_endpoint *endpoint = mfd_table_endpoint(table, at);

        if (endpoint->weight == 0)
            continue;
        ret->endpoints[ret->n] = endpoint;
        ret->tallies[ret->n] = agent->tally == NULL ? NULL : &agent->tally[table->n_rules + at];
        ret->n++;
    }
}

/* mfd_balance_serves - is this address an endpoint of the upstream, with a weight that is not 0? */
bool mfd_balance_serves(const struct mfd_table *table, uint32_t upstream,
                        const struct mfd_address *address)
{
    const struct mfd_table_upstream *of = mfd_table_upstream(table, upstream);

    for (uint32_t i = 0; i < of->n_endpoints; i++) {
        const struct mfd_endpoint *endpoint = mfd_table_endpoint(table, of->first_endpoint + i);

        if (endpoint->weight != 0 && mfd_address_is_same(&endpoint->address, address))
            return true;
    }
    return false;
}
