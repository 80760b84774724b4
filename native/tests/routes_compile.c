/* Compiling a route table: ports are settled, weights are kept, nonsense is refused, size is no matter. */
#include "rules.h"

#define PORTS 40 /* of the small world in which a naive matcher is compared */

static int compile(const struct mfd_rule *rules, uint32_t n)
{
    static const struct mfd_upstream upstream = {.balance = MFD_ROUND_ROBIN, .n_endpoints = 1};
    const struct mfd_endpoint endpoint = {.address = address_of("127.0.0.1", 80), .weight = 1};

    return mfd_routes_compile(rules, n, &upstream, 1, &endpoint, 1);
}

static int compile_one(struct mfd_rule rule)
{
    MFD_CLOSE int fd = compile(&rule, 1);

    return fd < 0 ? fd : 0;
}

static int compile_weights(const uint32_t *weights, uint32_t n)
{
    struct mfd_upstream upstream = {.balance = MFD_ROUND_ROBIN, .n_endpoints = n};
    struct mfd_endpoint *endpoints = calloc((size_t)n + 1, sizeof(*endpoints));
    int fd;

    NEED(endpoints != NULL);
    for (uint32_t i = 0; i < n; i++) {
        endpoints[i].address = address_of("127.0.0.1", (uint16_t)(i + 1));
        endpoints[i].weight = weights[i];
    }
    fd = mfd_routes_compile(NULL, 0, &upstream, 1, endpoints, n);
    free(endpoints);
    return fd;
}

static void nonsense_is_refused(void)
{
    struct mfd_rule family = rule_of("127.0.0.1", 32, 0, 1, MFD_PASS, 0);

    family.network.family = AF_UNIX;
    CHECK_EQ(compile_one(family), -EINVAL);
    family = rule_of("127.0.0.1", 32, 0, 1, MFD_PASS, 0);
    family.protocol = 0;
    CHECK_EQ(compile_one(family), -EINVAL);
    family.protocol = IPPROTO_MPTCP;
    CHECK_EQ(compile_one(family), -EINVAL);
    CHECK_EQ(compile_one(rule_of("127.0.0.1", 32, 2, 1, MFD_PASS, 0)), -EINVAL);
    CHECK_EQ(compile_one(rule_of("127.0.0.1", 33, 0, 1, MFD_PASS, 0)), -EINVAL);
    CHECK_EQ(compile_one(rule_of("::1", 129, 0, 1, MFD_PASS, 0)), -EINVAL);
    CHECK_EQ(compile_one(rule_of("", 1, 0, 1, MFD_PASS, 0)), -EINVAL);
    CHECK_EQ(compile_one(rule_of("", 0, 0, 1, 0, 0)), -EINVAL);
    CHECK_EQ(compile_one(rule_of("", 0, 0, 1, MFD_ASK + 1, 0)), -EINVAL);
    CHECK_EQ(compile_one(rule_of("", 0, 0, 1, MFD_DENY, 0)), -EINVAL);
    CHECK_EQ(compile_one(rule_of("", 0, 0, 1, MFD_DENY, 4096)), -EINVAL);
    CHECK_EQ(compile_one(rule_of("", 0, 0, 1, MFD_REDIRECT, 1)), -EINVAL);
    CHECK_EQ(compile_one(rule_of("", 0, 0, 65535, MFD_DENY, 4095)), 0);
    CHECK_EQ(compile_one(rule_of("::1", 128, 65535, 65535, MFD_REDIRECT, 0)), 0);
}

static void upstreams_that_serve_nobody_are_refused(void)
{
    const uint32_t none[2] = {0, 0};
    struct mfd_endpoint endpoints[2] = {
        {.address = address_of("127.0.0.1", 80), .weight = 1},
        {.address = address_of("127.0.0.1", 81), .weight = 1},
    };
    const struct mfd_upstream too_many = {.balance = MFD_RANDOM, .n_endpoints = 3};
    const struct mfd_upstream beyond = {
        .balance = MFD_RANDOM, .first_endpoint = 3, .n_endpoints = 1};
    const struct mfd_upstream wraps = {
        .balance = MFD_RANDOM, .first_endpoint = 1, .n_endpoints = UINT32_MAX};
    const struct mfd_upstream strange = {.balance = 0, .n_endpoints = 2};
    const struct mfd_upstream right = {.balance = MFD_RANDOM, .n_endpoints = 2};

    CHECK_EQ(compile_weights(none, 0), -EINVAL);
    CHECK_EQ(compile_weights(none, 2), -EINVAL);
    CHECK_EQ(mfd_routes_compile(NULL, 0, &too_many, 1, endpoints, 2), -EINVAL);
    CHECK_EQ(mfd_routes_compile(NULL, 0, &beyond, 1, endpoints, 2), -EINVAL);
    CHECK_EQ(mfd_routes_compile(NULL, 0, &wraps, 1, endpoints, 2), -EINVAL);
    CHECK_EQ(mfd_routes_compile(NULL, 0, &strange, 1, endpoints, 2), -EINVAL);
    endpoints[1].address.family = 0;
    CHECK_EQ(mfd_routes_compile(NULL, 0, &right, 1, endpoints, 2), -EINVAL);
    endpoints[1].address.family = AF_UNIX;
    CHECK_EQ(mfd_routes_compile(NULL, 0, &right, 1, endpoints, 2), -EINVAL);
    endpoints[1].path_size = MFD_UNIX_PATH_MAX;
    CHECK_EQ(mfd_routes_compile(NULL, 0, &right, 1, endpoints, 2), -EINVAL);
}

static void an_empty_table_is_a_table(void)
{
    MFD_CLOSE int fd = mfd_routes_compile(NULL, 0, NULL, 0, NULL, 0);
    const struct mfd_table *table = map_of(fd);

    CHECK_EQ(found(table, "127.0.0.1", 80).rule, MFD_ANY);
    CHECK_EQ(found(table, "::1", 80).rule, MFD_ANY);
    mfd_routes_unmap(table);
}

/* --- weights ----------------------------------------------------------------------------------------- */

static uint32_t reduce(const uint32_t *weights, uint32_t n, uint32_t common)
{
    uint32_t sum = 0;

    for (uint32_t i = 0; i < n; i++)
        sum += weights[i] / common;
    return sum;
}

static void weights_are_kept_exactly(void)
{
    static const struct {
        uint32_t weights[6];
        uint32_t n;
        uint32_t common;
    } rows[] = {
        {{1}, 1, 1},
        {{7}, 1, 7},
        {{1, 1}, 2, 1},
        {{5, 1, 1}, 3, 1},
        {{0, 3, 0, 1}, 4, 1},
        {{100, 200, 300}, 3, 100},
        {{997, 991}, 2, 1},
        {{1000, 1, 1000, 0, 13, 7}, 6, 1},
        {{60000, 5000}, 2, 5000},
    };

    for (size_t row = 0; row < MFD_COUNT(rows); row++) {
        MFD_CLOSE int fd = compile_weights(rows[row].weights, rows[row].n);
        const struct mfd_table *table = map_of(fd);
        const struct mfd_table_upstream *upstream = mfd_table_upstream(table, 0);
        const uint16_t *schedule = mfd_table_schedule(table, upstream);
        uint32_t turns[6] = {0};

        CHECK_EQ(upstream->n_schedule, reduce(rows[row].weights, rows[row].n, rows[row].common));
        for (uint32_t i = 0; i < upstream->n_schedule; i++)
            turns[schedule[i]]++;
        for (uint32_t i = 0; i < rows[row].n; i++)
            CHECK_EQ(turns[i], rows[row].weights[i] / rows[row].common);
        mfd_routes_unmap(table);
    }
}

static void turns_are_spread_evenly(void)
{
    static const uint32_t weights[] = {5, 1, 1};
    static const uint16_t expected[] = {0, 0, 1, 0, 2, 0, 0};
    MFD_CLOSE int fd = compile_weights(weights, 3);
    const struct mfd_table *table = map_of(fd);
    const struct mfd_table_upstream *upstream = mfd_table_upstream(table, 0);

    CHECK_EQ(upstream->n_schedule, MFD_COUNT(expected));
    CHECK(memcmp(mfd_table_schedule(table, upstream), expected, sizeof(expected)) == 0);
    mfd_routes_unmap(table);
}

static void weights_that_need_too_much_are_scaled_down(void)
{
    static const uint32_t weights[] = {1, 1000003, 0, UINT32_MAX};
    MFD_CLOSE int fd = compile_weights(weights, 4);
    const struct mfd_table *table = map_of(fd);
    const struct mfd_table_upstream *upstream = mfd_table_upstream(table, 0);
    const uint16_t *schedule = mfd_table_schedule(table, upstream);
    uint32_t turns[4] = {0};

    CHECK(upstream->n_schedule <= MFD_SCHEDULE_MAX);
    for (uint32_t i = 0; i < upstream->n_schedule; i++)
        turns[schedule[i]]++;
    CHECK(turns[0] >= 1); /* not forgotten */
    CHECK_EQ(turns[2], 0);
    CHECK(turns[1] < turns[3]);
    mfd_routes_unmap(table);
}

/* --- against a naive matcher --------------------------------------------------------------------------- */

static bool covers(const struct mfd_rule *rule, uint8_t last_byte, uint16_t port)
{
    unsigned past = rule->network.family == 0 ? 8 : 32u - rule->prefix;

    return port >= rule->first_port && port <= rule->last_port &&
           (past >= 8 || rule->network.bytes[3] >> past == last_byte >> past);
}

static uint32_t naive(const struct mfd_rule *rules, uint32_t n, uint32_t protocol,
                      uint8_t last_byte, uint16_t port)
{
    uint32_t best = MFD_ANY;

    for (uint32_t i = 0; i < n; i++) {
        const struct mfd_rule *rule = &rules[i];
        int width = rule->last_port - rule->first_port;

        if (rule->protocol != protocol || !covers(rule, last_byte, port))
            continue;
        if (best == MFD_ANY || rule->prefix > rules[best].prefix ||
            (rule->prefix == rules[best].prefix &&
             width < rules[best].last_port - rules[best].first_port))
            best = i;
    }
    return best;
}

static void random_tables_agree_with_a_naive_matcher(void)
{
    uint32_t state = 20240607;

    for (unsigned round = 0; round < 300; round++) {
        struct mfd_rule rules[24];
        uint32_t n = next_random(&state) % MFD_COUNT(rules) + 1;

        for (uint32_t i = 0; i < n; i++) {
            uint16_t first = (uint16_t)(next_random(&state) % PORTS);
            uint16_t last = (uint16_t)(first + next_random(&state) % (PORTS - first));
            bool any = next_random(&state) % 4 == 0;

            rules[i] = rule_of(any ? "" : "127.0.0.0", 0, first, last, MFD_PASS, 0);
            if (next_random(&state) % 2 == 0)
                rules[i].protocol = IPPROTO_UDP;
            if (any)
                continue;
            rules[i].prefix = (uint16_t)(28 + next_random(&state) % 5);
            rules[i].network.bytes[3] = (uint8_t)(next_random(&state) % 16);
        }
        MFD_CLOSE int fd = compile(rules, n);
        const struct mfd_table *table = map_of(fd);
        for (uint8_t byte = 0; byte < 16; byte++) {
            for (uint16_t port = 0; port < PORTS + 2; port++) {
                struct mfd_address address = address_of("127.0.0.0", port);
                struct mfd_match match;

                address.bytes[3] = byte;
                mfd_routes_find(table, IPPROTO_TCP, &address, &match);
                CHECK_EQ(match.rule, naive(rules, n, IPPROTO_TCP, byte, port));
                mfd_routes_find(table, IPPROTO_UDP, &address, &match);
                CHECK_EQ(match.rule, naive(rules, n, IPPROTO_UDP, byte, port));
            }
        }
        mfd_routes_unmap(table);
    }
}

static void a_large_table_finds_each_of_its_rules(void)
{
    const uint32_t n = 30000;
    struct mfd_rule *rules = calloc(n, sizeof(*rules));

    NEED(rules != NULL);
    for (uint32_t i = 0; i < n; i++) {
        rules[i] = rule_of("127.0.0.0", 32, 80, 80, MFD_PASS, 0);
        rules[i].network.bytes[1] = (uint8_t)(i >> 16);
        rules[i].network.bytes[2] = (uint8_t)(i >> 8);
        rules[i].network.bytes[3] = (uint8_t)i;
    }
    MFD_CLOSE int fd = compile(rules, n);
    const struct mfd_table *table = map_of(fd);
    for (uint32_t i = 0; i < n; i++) {
        struct mfd_address address = rules[i].network;
        struct mfd_match match;

        address.port = 80;
        mfd_routes_find(table, IPPROTO_TCP, &address, &match);
        CHECK_EQ(match.rule, i);
        address.port = 81;
        mfd_routes_find(table, IPPROTO_TCP, &address, &match);
        CHECK_EQ(match.rule, MFD_ANY);
    }
    mfd_routes_unmap(table);
    free(rules);
}

static void many_port_ranges_on_one_network_are_settled(void)
{
    const uint32_t n = 10000;
    struct mfd_rule *rules = calloc(n, sizeof(*rules));

    NEED(rules != NULL);
    for (uint32_t i = 0; i < n; i++) /* nested: the last is the narrowest */
        rules[i] = rule_of("127.0.0.1", 32, (uint16_t)i, (uint16_t)(65535 - i), MFD_PASS, 0);
    MFD_CLOSE int fd = compile(rules, n);
    const struct mfd_table *table = map_of(fd);
    for (uint32_t i = 0; i < n; i++) {
        CHECK_EQ(found(table, "127.0.0.1", (uint16_t)i).rule, i);
        CHECK_EQ(found(table, "127.0.0.1", (uint16_t)(65535 - i)).rule, i);
    }
    CHECK_EQ(found(table, "127.0.0.1", 30000).rule, n - 1);
    mfd_routes_unmap(table);
    free(rules);
}

static void a_table_past_the_limit_is_refused(void)
{
    const uint32_t n = MFD_ROUTES_SIZE_MAX / sizeof(struct mfd_slot) / 4 + 1;
    const struct mfd_rule rule = rule_of("", 0, 0, 65535, MFD_PASS, 0);

    CHECK_EQ(mfd_routes_compile(&rule, n, NULL, 0, NULL, 0), -E2BIG); /* before any is read */
}

int main(void)
{
    nonsense_is_refused();
    upstreams_that_serve_nobody_are_refused();
    an_empty_table_is_a_table();
    weights_are_kept_exactly();
    turns_are_spread_evenly();
    weights_that_need_too_much_are_scaled_down();
    random_tables_agree_with_a_naive_matcher();
    a_large_table_finds_each_of_its_rules();
    many_port_ranges_on_one_network_are_settled();
    a_table_past_the_limit_is_refused();
    return check_result();
}
