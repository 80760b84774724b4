/* Program blocks: sound ones are read, malformed ones refused; and where a spawn can fail. */
#include <stddef.h>
#include <sys/wait.h>

#include "check.h"

#define BLOCK_ROOM 512

struct block {
    union {
        struct mfd_program program;
        uint8_t bytes[BLOCK_ROOM];
    };
    size_t size;
};

static void append(struct block *block, const void *data, size_t size)
{
    NEED(block->size + size <= BLOCK_ROOM);
    memcpy(block->bytes + block->size, data, size);
    block->size += size;
}

/* @strings: working directory, file, arguments, environment, each with its NUL */
static struct block block_of(uint32_t n_argv, uint32_t n_env, uint32_t n_groups,
                             const char *strings, size_t strings_size)
{
    static const uint32_t groups[] = {100, 200, 300};
    struct block block = {
        .program =
            {
                .magic = MFD_PROGRAM_MAGIC,
                .n_argv = n_argv,
                .n_env = n_env,
                .n_groups = n_groups,
                .uid = MFD_ANY,
                .gid = MFD_ANY,
                .umask = MFD_ANY,
                .strings_size = (uint32_t)strings_size,
            },
        .size = sizeof(struct mfd_program),
    };

    append(&block, groups, n_groups * sizeof(groups[0]));
    append(&block, strings, strings_size);
    return block;
}

#define STRINGS(literal) (literal), sizeof(literal) - 1 /* without the literal's own NUL */

static struct block sound_block(void)
{
    return block_of(2, 1, 2, STRINGS("/tmp\0prog\0prog\0-x\0A=1\0"));
}

static int open_block(const void *bytes, size_t size)
{
    MFD_CLOSE int fd = memfd_of(bytes, size);
    struct mfd_program_view view;
    int error = mfd_program_open(fd, &view);

    mfd_program_close(&view);
    return error;
}

static void a_sound_block_is_read(void)
{
    struct block block = sound_block();
    MFD_CLOSE int fd = memfd_of(block.bytes, block.size);
    struct mfd_program_view view;

    NEED(mfd_program_open(fd, &view) == 0);
    CHECK(strcmp(view.working_dir, "/tmp") == 0);
    CHECK(strcmp(view.file, "prog") == 0);
    CHECK(strcmp(view.argv[0], "prog") == 0);
    CHECK(strcmp(view.argv[1], "-x") == 0);
    CHECK(view.argv[2] == NULL);
    CHECK(strcmp(view.envp[0], "A=1") == 0);
    CHECK(view.envp[1] == NULL);
    CHECK_EQ(view.groups[1], 200);
    mfd_program_close(&view);
    CHECK(view.program == NULL);
}

static void strings_that_do_not_add_up_are_refused(void)
{
    const struct {
        struct block block;
        int expected;
    } rows[] = {
        {block_of(1, 0, 0, STRINGS("\0f\0f\0")), 0},
        {block_of(1, 0, 0, STRINGS("\0\0\0")), 0}, /* empty, which exec will refuse */
        {block_of(1, 2, 3, STRINGS("d\0f\0f\0A=1\0B=\0")), 0},
        {block_of(0, 0, 0, STRINGS("\0f\0")), -EBADMSG}, /* no argv[0] */
        {block_of(0, 1, 0, STRINGS("\0f\0f\0")), -EBADMSG},
        {block_of(1, 0, 0, STRINGS("")), -EBADMSG},
        {block_of(1, 0, 0, STRINGS("\0")), -EBADMSG},
        {block_of(1, 0, 0, STRINGS("\0f\0")), -EBADMSG},
        {block_of(1, 0, 0, STRINGS("\0f\0f")), -EBADMSG}, /* the last is not ended */
        {block_of(1, 0, 0, STRINGS("dir")), -EBADMSG},
        {block_of(2, 0, 0, STRINGS("\0f\0f\0")), -EBADMSG},
        {block_of(1, 1, 0, STRINGS("\0f\0f\0")), -EBADMSG},
        {block_of(1, 0, 0, STRINGS("\0f\0f\0more\0")), -EBADMSG}, /* nobody's */
        {block_of(1, 0, 0, STRINGS("\0f\0f\0\0")), -EBADMSG},
    };

    for (size_t i = 0; i < MFD_COUNT(rows); i++) {
        char about[16];

        (void)snprintf(about, sizeof(about), "row %zu", i);
        check_about = about;
        CHECK_EQ(open_block(rows[i].block.bytes, rows[i].block.size), rows[i].expected);
        check_about = "";
    }
}

static void corrupted_headers_are_refused(void)
{
    static const size_t fields[] = {
        offsetof(struct mfd_program, magic),        offsetof(struct mfd_program, n_argv),
        offsetof(struct mfd_program, n_env),        offsetof(struct mfd_program, n_groups),
        offsetof(struct mfd_program, strings_size),
    };
    static const uint32_t values[] = {0,         3, 4, 1000, 1u << 30, INT32_MAX, UINT32_MAX - 1,
                                      UINT32_MAX};

    for (size_t i = 0; i < MFD_COUNT(fields); i++) {
        for (size_t j = 0; j < MFD_COUNT(values); j++) {
            struct block block = sound_block();

            memcpy(block.bytes + fields[i], &values[j], sizeof(values[j]));
            CHECK_EQ(open_block(block.bytes, block.size), -EBADMSG);
        }
    }
}

static void blocks_of_other_sizes_are_refused(void)
{
    struct block block = sound_block();
    MFD_CLOSE int huge_fd = memfd_of(block.bytes, block.size);
    struct mfd_program_view view;

    for (size_t size = 0; size < block.size; size++)
        CHECK_EQ(open_block(block.bytes, size), -EBADMSG);
    CHECK_EQ(open_block(block.bytes, block.size + 1), -EBADMSG);
    NEED(ftruncate(huge_fd, 1 << 30) == 0);
    CHECK_EQ(mfd_program_open(huge_fd, &view), -EBADMSG);
    mfd_program_close(&view);
    CHECK_EQ(mfd_program_open(-1, &view), -EBADF);
    mfd_program_close(&view);
}

/* --- spawning ------------------------------------------------------------------------------------------ */

static int spawn(const struct block *block, const int *stdio, struct mfd_spawn_result *ret_result)
{
    static const struct mfd_filter_features features = {.create = true};
    MFD_CLOSE int fd = memfd_of(block->bytes, block->size);
    struct mfd_program_view view;
    struct mfd_spawn_request request = {.view = &view, .features = &features, .stdio = stdio};
    int error;

    NEED(getrlimit(RLIMIT_NOFILE, &request.nofile) == 0);
    NEED(mfd_program_open(fd, &view) == 0);
    error = mfd_spawn(&request, ret_result);
    mfd_program_close(&view);
    return error;
}

/* Whether programs can be started under a filter here at all. */
static bool can_spawn(void)
{
    struct block block = block_of(1, 1, 0, STRINGS("\0true\0true\0PATH=/usr/bin:/bin\0"));
    struct mfd_spawn_result result;
    int status = -1;

    if (spawn(&block, NULL, &result) < 0) {
        CHECK_EQ(result.stage, MFD_STAGE_FILTER); /* EBUSY below another supervisor */
        return false;
    }
    CHECK(result.pid > 0);
    CHECK(fcntl(result.listener_fd, F_GETFD) == FD_CLOEXEC);
    CHECK(waitpid(result.pid, &status, 0) == result.pid);
    CHECK_EQ(status, 0);
    (void)close(result.listener_fd);
    return true;
}

static void the_program_gets_what_the_block_says(void)
{
    static const char script[] = "\0sh\0sh\0-c\0read x; echo \"$x $A $0 $(pwd)\"; exit 7\0"
                                 "arg\0PATH=/usr/bin:/bin\0A=env\0";
    struct block block = block_of(4, 2, 0, STRINGS(""));
    struct mfd_spawn_result result;
    char text[64] = "";
    int status = -1;
    int in[2];
    int out[2];

    block.program.strings_size = (uint32_t)(4 + sizeof(script) - 1);
    append(&block, "/usr", 4); /* the directory: the script's first NUL ends it */
    append(&block, script, sizeof(script) - 1);
    NEED(pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0);
    NEED(write(in[1], "given\n", 6) == 6);
    CHECK_EQ(spawn(&block, (const int[3]){in[0], out[1], out[1]}, &result), 0);
    (void)close(out[1]);
    CHECK(read(out[0], text, sizeof(text) - 1) > 0);
    CHECK(strcmp(text, "given env arg /usr\n") == 0);
    CHECK(waitpid(result.pid, &status, 0) == result.pid);
    CHECK_EQ(status, 7 << 8);
    (void)close(result.listener_fd);
    (void)close(in[0]);
    (void)close(in[1]);
    (void)close(out[0]);
}

static void a_failed_spawn_says_where_and_leaves_nothing(void)
{
    const struct {
        struct block block;
        enum mfd_stage stage;
        int error;
        const int *stdio;
    } rows[] = {
        {block_of(1, 1, 0, STRINGS("\0/no/such/file\0f\0PATH=/bin\0")), MFD_STAGE_EXEC, ENOENT,
         NULL},
        {block_of(1, 1, 0, STRINGS("\0no-such-program\0f\0PATH=/bin\0")), MFD_STAGE_EXEC, ENOENT,
         NULL},
        {block_of(1, 1, 0, STRINGS("\0/\0f\0PATH=/bin\0")), MFD_STAGE_EXEC, EACCES, NULL},
        {block_of(1, 1, 0, STRINGS("/no/such/directory\0true\0f\0PATH=/bin\0")), MFD_STAGE_CHDIR,
         ENOENT, NULL},
        {block_of(1, 1, 0, STRINGS("\0true\0f\0PATH=/bin\0")), MFD_STAGE_FILES, EBADF,
         (const int[3]){-1, -1, -1}},
    };
    unsigned before = count_open_fds();

    for (size_t i = 0; i < MFD_COUNT(rows); i++) {
        struct mfd_spawn_result result;

        CHECK_EQ(spawn(&rows[i].block, rows[i].stdio, &result), -rows[i].error);
        CHECK_EQ(result.stage, rows[i].stage);
        CHECK_EQ(result.error, rows[i].error);
        CHECK_EQ(result.listener_fd, -1);
        CHECK_EQ(waitpid(-1, NULL, WNOHANG), -1); /* no zombie */
    }
    CHECK_EQ(count_open_fds(), before);
}

int main(void)
{
    a_sound_block_is_read();
    strings_that_do_not_add_up_are_refused();
    corrupted_headers_are_refused();
    blocks_of_other_sizes_are_refused();
    if (can_spawn()) {
        the_program_gets_what_the_block_says();
        a_failed_spawn_says_where_and_leaves_nothing();
    } else {
        check_skip("programs under a filter of our own");
    }
    return check_result();
}
