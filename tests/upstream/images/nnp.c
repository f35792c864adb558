/* Says who it is: set-user-ID root in the image nonewprivs, it is root exactly where privileges may grow. */
#include <stdio.h>
#include <unistd.h>

int main(void) {
    printf("Effective uid: %d\n", geteuid());
    return 0;
}
