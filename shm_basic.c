/* SPDX-License-Identifier: MIT */
/*
 * shm_basic: a shared memory object has a name and outlives its processes.
 *
 *     arbiter  ---> +----------------------+ ---> ls, xxd, watch
 *     producer ---> |  /dev/shm/hello_shm  | ---> consumer
 *                   +----------------------+
 *     It exists until shm_unlink(), even while no process uses it.
 *
 *     ./shm_basic arbiter
 *     ./shm_basic producer hello; ./shm_basic consumer
 *
 * shm_open(3), shm_unlink(3), shm_overview(7), posix_fallocate(3), mmap(2)
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* To experiment, change these lines or use the options. */
static int oflag = O_RDWR | O_CREAT; /* --excl adds O_EXCL */
static int prot = PROT_READ | PROT_WRITE;
static int flags = MAP_SHARED;
static int keep;           /* --keep: do not remove the object */
static double delay = 0.5; /* seconds between two letters */
enum { SIZE = 128 };       /* bytes in the object: 8 rows of xxd */

static enum { ARBITER, PRODUCER, CONSUMER } role;
static const char *name = "/hello_shm", *text;

static void arbitrate(char *object);
static void parse_options(int argc, char *argv[]);

int main(int argc, char *argv[])
{
    parse_options(argc, argv);
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (role == CONSUMER) {
        oflag = O_RDONLY;
        prot = PROT_READ;
    }
    const int fd = shm_open(name, oflag, 0600);
    if (fd == -1) err(1, "%s", name);

    /* Without bytes, mmap() succeeds, but the first access raises SIGBUS. */
    const off_t size = lseek(fd, 0, SEEK_END);
    if (size == 0 && role == CONSUMER)
        errx(1, "%s: the object has no bytes yet; run a producer", name);
    if (size != 0 && size != SIZE)
        errx(1, "%s: not %d bytes long; use another --name", name, SIZE);
    if (role != CONSUMER) {
        const int error = posix_fallocate(fd, 0, SIZE);
        if (error != 0) errx(1, "%s: %s", name, strerror(error));
    }

    char *object = mmap(NULL, SIZE, prot, flags, fd, 0);
    if (object == MAP_FAILED) err(1, "%s: mmap", name);

    if (role == ARBITER) arbitrate(object);
    if (role == PRODUCER) strncpy(object, text, SIZE); /* pads with zeros */
    if (role == CONSUMER) printf("%s holds \"%.*s\"\n", name, SIZE, object);

    /* The name goes. The memory stays while a process has it open or mapped. */
    const int removes = role != PRODUCER && !keep;
    if (removes && shm_unlink(name) == -1) err(1, "%s: shm_unlink", name);
    if (ferror(stdout) || fclose(stdout) == EOF)
        errx(1, "writing to stdout failed");
}

static void wait_for_enter(const char *purpose)
{
    printf("[%d] press Enter to %s\n", getpid(), purpose);
    int c = getchar();
    while (c != '\n' && c != EOF) c = getchar();
}

static void arbitrate(char *object)
{
    printf("[%d] %s held \"%.*s\"\n", getpid(), name, SIZE, object);
    snprintf(object, SIZE, "Hello, shared memory! I am %d", getpid());
    wait_for_enter("fill the object ten times");
    for (int letter = 'A'; letter <= 'J'; letter++) {
        memset(object, letter, SIZE);
        printf("[%d] filled it with %c\n", getpid(), letter);
        usleep(delay * 1e6);
    }
    wait_for_enter("end");
}

static const char usage[] =
    "usage: shm_basic [--excl] [--keep] [--name=/NAME] [--delay=0...60]\n"
    "                 arbiter | producer TEXT | consumer";

static void parse_options(int argc, char *argv[])
{
    const struct option options[] = {
        {"delay", required_argument, NULL, 'd'},
        {"excl", no_argument, &oflag, oflag | O_EXCL},
        {"keep", no_argument, &keep, 1},
        {"name", required_argument, NULL, 'n'},
        {0}};
    const char *const roles[] = {"arbiter", "producer", "consumer"};
    char *end = "";
    int option = 0;
    while (option != -1) {
        option = getopt_long_only(argc, argv, "", options, NULL);
        if (option == 'd') delay = strtod(optarg, &end);
        if (option == 'n') name = optarg;
        if (option == '?' || end == optarg) errx(2, "%s", usage);
    }
    if (*end != '\0' || !(delay >= 0 && delay <= 60)) errx(2, "%s", usage);
    const char *word = optind < argc ? argv[optind] : "";
    while (role <= CONSUMER && strcmp(word, roles[role]) != 0) role++;
    const int words = role == PRODUCER ? 2 : 1;
    if (role > CONSUMER || argc != optind + words) errx(2, "%s", usage);
    text = argv[argc - 1];
    if (strlen(text) >= SIZE)
        errx(2, "TEXT must be shorter than %d bytes\n%s", SIZE, usage);
}
