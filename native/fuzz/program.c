/* Any bytes as a program block: refused, or every string of it ends inside. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "../meshfd.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t n_read; /* so that reading is not optimized away */

static void read_strings(char *const *strings, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        n_read += strlen(strings[i]);
    if (strings[n] != NULL)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    MFD_CLOSE int fd = memfd_create("fuzz", MFD_CLOEXEC);
    struct mfd_program_view view;

    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    if (mfd_program_open(fd, &view) == 0) {
        n_read += strlen(view.working_dir) + strlen(view.file);
        for (uint32_t i = 0; i < view.program->n_groups; i++)
            n_read += view.groups[i];
        if (view.program->n_argv == 0)
            abort();
        read_strings(view.argv, view.program->n_argv);
        read_strings(view.envp, view.program->n_env);
    }
    mfd_program_close(&view);
    return 0;
}
