"""An arm that reaches: two links in the horizontal plane, driven by noisy torques that lag."""

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.errors import ArgumentError
from clinode.system import Quantity, System, Time, Values

State = Float[Tensor, "... state"]
Input = Float[Tensor, "... input"]
Output = Float[Tensor, "... output"]


class TwoLinkArm(System):
    """Shoulder and elbow in the horizontal plane, the hand at the end of the second link.

        M(theta) theta'' + c(theta, theta') + F theta' = torque
        t_a torque' = command (1 + sigma white noise) - torque

        M = | a1 + 2 a2 cos theta2   a3 + a2 cos theta2 |   c = a2 sin theta2 | -w2 (2 w1 + w2) |
            | a3 + a2 cos theta2     a3                 |                     |  w1^2           |

        a1 = I1 + I2 + m2 l1^2,   a2 = m2 l1 s2,   a3 = I2,   F = | f g |
                                                                  | g f |

    Masses, lengths, moments of inertia and joint friction of Li & Todorov 2004 (Proc. ICINCO
    1:222-229). Torque follows the command with the time constant of muscle activation there; the
    noise of a command is proportional to it, 0.5 a step of 10 ms in Todorov 2005 (Neural
    Computation 17:1084-1108), which is sigma = 0.05 s^0.5. Angles are those of the shoulder from
    the x axis and of the elbow from the upper arm.

    Outputs are the states, then place and velocity of the hand.

    Args:
        m2: Mass of the forearm; that of the upper arm is in I1.
        l1, l2: Lengths of upper arm and forearm.
        s2: Distance of the forearm's center of mass from the elbow.
        I1, I2: Moments of inertia of upper arm and forearm about shoulder and elbow.
        f, g: Friction of a joint, and between the joints.
        t_a: Time constant of a torque.
        sigma: Noise of the command; 0 for a silent arm.
    """

    time_unit = "s"
    states = (
        Quantity("shoulder", "rad", range=(-0.5, 2.5), default=0.7853981633974483),
        Quantity("elbow", "rad", range=(0.1, 2.8), default=1.5707963267948966),
        Quantity("shoulder_velocity", "rad/s", range=(-10.0, 10.0), default=0.0),
        Quantity("elbow_velocity", "rad/s", range=(-10.0, 10.0), default=0.0),
        Quantity("shoulder_torque", "N*m", range=(-20.0, 20.0), default=0.0),
        Quantity("elbow_torque", "N*m", range=(-20.0, 20.0), default=0.0),
    )
    inputs = (
        Quantity("shoulder_command", "N*m", range=(-20.0, 20.0), default=0.0),
        Quantity("elbow_command", "N*m", range=(-20.0, 20.0), default=0.0),
    )
    outputs = (
        *states,
        Quantity("hand_x", "m"),
        Quantity("hand_y", "m"),
        Quantity("hand_velocity_x", "m/s"),
        Quantity("hand_velocity_y", "m/s"),
    )
    constants = (
        Quantity("m2", "kg"),
        Quantity("l1", "m"),
        Quantity("l2", "m"),
        Quantity("s2", "m"),
        Quantity("I1", "kg*m^2"),
        Quantity("I2", "kg*m^2"),
        Quantity("f", "N*m*s/rad"),
        Quantity("g", "N*m*s/rad"),
        Quantity("t_a", "s"),
        Quantity("sigma", "s^0.5"),
    )

    def __init__(
        self,
        *,
        m2: Values = 1.0,
        l1: Values = 0.30,
        l2: Values = 0.33,
        s2: Values = 0.16,
        I1: Values = 0.025,
        I2: Values = 0.045,
        f: Values = 0.05,
        g: Values = 0.025,
        t_a: Values = 0.04,
        sigma: Values = 0.05,
    ):
        super().__init__()
        self.register_constants(
            m2=m2, l1=l1, l2=l2, s2=s2, I1=I1, I2=I2, f=f, g=g, t_a=t_a, sigma=sigma
        )

    def vector_field(self, t: Time, x: State, u: Input) -> State:
        """Rates of change, as in the class's docstring."""
        _, elbow, w1, w2, torque1, torque2 = self.split(x).values()
        a2 = self.m2 * self.l1 * self.s2
        c = a2 * torch.sin(elbow)
        left1 = torque1 + c * w2 * (2 * w1 + w2) - self.f * w1 - self.g * w2
        left2 = torque2 - c * w1**2 - self.g * w1 - self.f * w2
        M11, M12, M22 = self.inertia(elbow)
        determinant = M11 * M22 - M12**2
        lag = (u - x[..., 4:]) / self.t_a
        return self.join(
            shoulder=w1,
            elbow=w2,
            shoulder_velocity=(M22 * left1 - M12 * left2) / determinant,
            elbow_velocity=(M11 * left2 - M12 * left1) / determinant,
            shoulder_torque=lag[..., :1],
            elbow_torque=lag[..., 1:],
        )

    def inertia(self, elbow: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """M11, M12 = M21, M22, in kg m^2, at an angle of the elbow (..., 1)."""
        bent = self.m2 * self.l1 * self.s2 * torch.cos(elbow)
        M22 = self.I2 + 0 * bent
        return self.I1 + self.I2 + self.m2 * self.l1**2 + 2 * bent, self.I2 + bent, M22

    def energy(self, x: State) -> Float[Tensor, "..."]:
        """Kinetic energy, in J."""
        _, elbow, w1, w2, _, _ = self.split(x).values()
        M11, M12, M22 = self.inertia(elbow)
        return (0.5 * M11 * w1**2 + M12 * w1 * w2 + 0.5 * M22 * w2**2).squeeze(-1)

    def noise(self, t: Time, x: State, u: Input) -> State:
        """Of the torques, proportional to the commands."""
        size = self.sigma * u / self.t_a
        batch = torch.broadcast_shapes(x.shape[:-1], size.shape[:-1])
        still = torch.zeros_like(x[..., :4]).expand(*batch, 4)
        return torch.cat([still, size.expand(*batch, 2)], dim=-1)

    def output(self, t: Time, x: State, u: Input) -> Output:
        """The states, and where the hand is and goes."""
        shoulder, elbow, w1, w2, _, _ = self.split(x).values()
        both = shoulder + elbow
        hand = [
            self.l1 * torch.cos(shoulder) + self.l2 * torch.cos(both),
            self.l1 * torch.sin(shoulder) + self.l2 * torch.sin(both),
            -self.l1 * torch.sin(shoulder) * w1 - self.l2 * torch.sin(both) * (w1 + w2),
            self.l1 * torch.cos(shoulder) * w1 + self.l2 * torch.cos(both) * (w1 + w2),
        ]
        parts = torch.broadcast_tensors(x[..., :1], *hand)[1:]
        return torch.cat([x.expand(*parts[0].shape[:-1], -1), *parts], dim=-1)

    def posture(self, hand_x: float, hand_y: float) -> Float[Tensor, " state"]:
        """The state at rest with the hand at a place, the elbow bent to the right of a right arm.

        Raises:
            ArgumentError: The hand cannot get there.
        """
        l1, l2 = float(self.l1), float(self.l2)
        place = torch.tensor([hand_x, hand_y], dtype=self.dtype)
        bent = ((place**2).sum() - l1**2 - l2**2) / (2 * l1 * l2)
        if not -1 <= float(bent) <= 1:
            raise ArgumentError(
                f"the hand reaches from {abs(l1 - l2):.3g} to {l1 + l2:.3g} m, not to "
                f"({hand_x}, {hand_y}) m"
            )
        elbow = torch.acos(bent)
        inward = torch.atan2(l2 * torch.sin(elbow), l1 + l2 * torch.cos(elbow))
        shoulder = torch.atan2(place[1], place[0]) - inward
        return torch.cat([torch.stack([shoulder, elbow]), torch.zeros(4, dtype=self.dtype)])
